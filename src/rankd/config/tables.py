"""The tables of a config file: what a calibration and another name of the model hold."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# What means the server's own instruction where the name of a preset is expected.
DEFAULT = "default"

# In metrics, an instruction that a request brought along.
CUSTOM = "custom"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name: 1 to 64 letters, digits, _, - and . make one")
    if name == CUSTOM:
        raise ValueError(f"{name!r} is taken: it means an instruction that a request brings along")
    if name == DEFAULT:
        raise ValueError(f"{name!r} is taken: it means the server's own instruction")
    return name


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("an instruction must not be empty")
    return text


PresetName = Annotated[str, AfterValidator(_named)]
Instruction = Annotated[str, AfterValidator(_said)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Platt(_Table):
    """Logits become probabilities: sigmoid(slope * logit + intercept).

    Source: J. Platt, Probabilistic outputs for support vector machines, 1999.
    """

    # A slope of 0 or less would turn the order round.
    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)


class Calibration(_Table):
    """What was measured on judged pairs with one instruction; `rankd calibrate` writes it.

    Attributes:
        threshold: scores below it are no answers; of the score in [0, 1], not of the
            normalized one.
        model: what it was measured with; another model does not start with it.
        instruction: likewise.
    """

    threshold: float | None = Field(None, ge=0, le=1)
    platt: Platt | None = None
    model: str | None = None
    instruction: str | None = None


class Alias(_Table):
    """Another name of the served model, and what requests to it mean that do not say.

    Attributes:
        preset: the name of their instruction.
        truncation: what happens to documents that do not fit: they are cut, the request is
            refused, or they are read in chunks of which the best counts.
        truncation_side: where they are cut: at their end is right.
    """

    preset: str | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)
    truncation: Literal["cut", "refuse", "chunk"] | None = None
    truncation_side: Literal["right", "left"] | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1)
    max_chunks_per_doc: int | None = Field(None, ge=1)
    overlap_tokens: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _refuse_what_says_nothing(self) -> Self:
        chunked = self.truncation in ("chunk", None)
        for name in ("max_chunks_per_doc", "overlap_tokens"):
            if getattr(self, name) is not None and not chunked:
                raise ValueError(f"{name} means nothing with truncation = {self.truncation!r}")
        if self.truncation_side and self.truncation_policy == "refuse":
            raise ValueError("truncation_side means nothing with truncation = 'refuse'")
        return self

    @property
    def truncation_policy(self) -> Literal["cut", "refuse", "chunk"] | None:
        """`truncation`, or what the fields that belong to it let guess."""
        if self.truncation:
            return self.truncation
        if self.max_chunks_per_doc or self.overlap_tokens:
            return "chunk"
        return "cut" if self.truncation_side else None
