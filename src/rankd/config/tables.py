"""The tables of a config file: presets, calibrations and aliases."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# The preset name that stands for the server's own instruction.
DEFAULT = "default"

# The preset name, in metrics, of an instruction that a request brings along.
CUSTOM = "custom"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name: 1 to 64 letters, digits, _, - and . make one")
    if name == CUSTOM:
        raise ValueError(f"{name!r} is taken: it means an instruction that a request brings along")
    if name == DEFAULT:
        raise ValueError(f"{name!r} is taken: it means the server's own instruction")
    return name


def _check_instruction(text: str) -> str:
    if not text.strip():
        raise ValueError("an instruction must not be empty")
    return text


PresetName = Annotated[str, AfterValidator(_check_name)]
Instruction = Annotated[str, AfterValidator(_check_instruction)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Platt(Table):
    """Turns logits into probabilities: sigmoid(slope * logit + intercept).

    Source: J. Platt, Probabilistic outputs for support vector machines, 1999.
    """

    # A negative slope would reverse the ranking.
    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)


class Calibration(Table):
    """Measured on judged pairs with one instruction; `rankd calibrate` writes it.

    Attributes:
        threshold: documents with a lower score are dropped; applies to the score in [0, 1], not
            to the normalized one.
        platt: scaling of logits to probabilities.
        model: name of the model it was measured with; the server refuses to start with another.
        instruction: text it was measured with; with another the server refuses to start.
    """

    threshold: float | None = Field(None, ge=0, le=1)
    platt: Platt | None = None
    model: str | None = None
    instruction: str | None = None


class Alias(Table):
    """Another name of the served model, with defaults for requests that use it.

    Attributes:
        preset: name of the instruction.
        score_threshold: documents with a lower score are dropped; in [0, 1].
        truncation: what happens to documents that are too long: they are cut, the request is
            refused, or they are split into chunks and the best chunk counts.
        truncation_side: the end of a document that is cut; right is the end of the text.
        max_tokens_per_doc: documents longer than this are too long.
        max_chunks_per_doc: maximum chunks of one document.
        overlap_tokens: tokens that neighbouring chunks share.
    """

    preset: str | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)
    truncation: Literal["cut", "refuse", "chunk"] | None = None
    truncation_side: Literal["right", "left"] | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1)
    max_chunks_per_doc: int | None = Field(None, ge=1)
    overlap_tokens: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _refuse_keys_without_effect(self) -> Self:
        chunked = self.truncation in ("chunk", None)
        for name in ("max_chunks_per_doc", "overlap_tokens"):
            if getattr(self, name) is not None and not chunked:
                raise ValueError(f"{name} means nothing with truncation = {self.truncation!r}")
        if self.truncation_side and self.truncation_policy == "refuse":
            raise ValueError("truncation_side means nothing with truncation = 'refuse'")
        return self

    @property
    def truncation_policy(self) -> Literal["cut", "refuse", "chunk"] | None:
        """`truncation`; if unset, inferred from the fields that need it."""
        if self.truncation:
            return self.truncation
        if self.max_chunks_per_doc or self.overlap_tokens:
            return "chunk"
        return "cut" if self.truncation_side else None
