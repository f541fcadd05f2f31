"""The tables `[[shadow]]` and `[[ab]]`: trying another model or instruction on live requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rankd.config.tables import Instruction, ModelName, PresetName, Table

# More than 0: a table that applies to no request is a mistake.
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


def _check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} must begin with http:// or https://")
    return url


class Shadow(Table):
    """A share of requests that is scored a second time, in the background, and compared.

    Attributes:
        name: in metrics and in the file of lines.
        share: of the requests that it applies to, above 0 to 1.
        instruction, preset, alias: what the second scoring uses instead: a text, the name of an
            instruction, or a model name of [aliases] with its defaults. With `url`, the text of
            the instruction is sent, and the alias is the model that the request names.
        url: another rankd server that scores; default: this server.
        api_key_file: file with the key for `url`.
        for_preset: compares only requests that are judged by this instruction. Default: the
            server's own, or all requests if only `url` is set.
        k: documents at the top that the overlap is measured over.
        timeout_seconds: of one second scoring.
        max_pending: second scorings that wait or run; beyond it requests are not compared.
        log: file to which each comparison is appended as a line of JSON.
        texts: whether the lines hold query and documents; otherwise digests of them.
        log_mb: the file's maximum size in MiB; then nothing more is written.
    """

    name: PresetName
    share: Share
    instruction: Instruction | None = None
    preset: str | None = None
    alias: ModelName | None = None
    url: Annotated[str, AfterValidator(_check_url)] | None = None
    api_key_file: Path | None = None
    for_preset: str | None = None
    k: int = Field(10, ge=1)
    timeout_seconds: float = Field(60, gt=0, le=3600)
    max_pending: int = Field(32, ge=1, le=10_000)
    log: Path | None = None
    texts: bool = False
    log_mb: int = Field(1024, ge=1)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        changes = [name for name in ("instruction", "preset", "alias") if getattr(self, name)]
        if not (changes or self.url):
            raise ValueError(f"{self.name} has none of instruction, preset, alias and url")
        if {"instruction", "preset"} <= {*changes} or (len(changes) > 1 and not self.url):
            raise ValueError(f"{self.name} has {' and '.join(changes)}: keep one")
        if self.api_key_file and not self.url:
            raise ValueError(f"{self.name}: api_key_file means nothing without url")
        if self.texts and not self.log:
            raise ValueError(f"{self.name}: texts means nothing without log")
        return self

    @property
    def changes_instruction(self) -> bool:
        return bool(self.instruction or self.preset or (self.alias and not self.url))


class Experiment(Table):
    """An A/B test: a share of callers gets variant B, always the same ones.

    Attributes:
        name: in the header `x-rankd-variant` and in metrics.
        share: of callers that get B, above 0 to 1.
        by: whether users (`user` of the request, per key) or API keys are drawn.
        preset, alias: variant B: the name of an instruction, or a model name of [aliases].
    """

    name: PresetName
    share: Share
    by: Literal["user", "key"] = "user"
    preset: str | None = None
    alias: ModelName | None = None

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        if bool(self.preset) == bool(self.alias):
            raise ValueError(f"{self.name} needs either preset or alias: its variant B")
        return self
