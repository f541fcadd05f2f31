"""Calibrations that ship with rankd, in `calibrations/`: one TOML file per model.

`rankd calibrate --table` writes them. A table holds for the weights, the prompt and the instruction
that it was measured with, and for nothing else.
"""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rankd.config.tables import Platt
from rankd.models.checkpoint import Checkpoint

FOLDER = Path(__file__).parent / "calibrations"

# Hex digits of `Checkpoint.fingerprint` that tables and reports hold.
FINGERPRINT_DIGITS = 16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_log = logging.getLogger("rankd")


class CalibrationTable(BaseModel):
    """The calibration of one model.

    Attributes:
        model: its name when it was measured.
        weights: start of `Checkpoint.fingerprint`.
        template: `PromptEncoder.template`.
        instruction: text that it was measured with; None if the prompt has no place for one.
        threshold: score in [0, 1] that separates relevant documents best; the server does not
            apply it. None: no threshold was found.
        platt: scaling of logits to probabilities.
        measured: where the figures are from: pairs, engine, version, quality.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{FINGERPRINT_DIGITS}}}$")]
    template: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    instruction: str | None = None
    threshold: float | None = Field(None, ge=0, le=1)
    platt: Platt
    measured: dict[str, Any]


def file_of(model: str, folder: Path = FOLDER) -> Path | None:
    """The file of a model's table, by the last part of its name; None if there is none."""
    name = model.rpartition("/")[2]
    file = folder / f"{name}.toml"
    return file if _NAME.fullmatch(name) and file.is_file() else None


def read_table(file: Path) -> CalibrationTable:
    return CalibrationTable.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))


def calibration_of(
    checkpoint: Checkpoint, template: str, instruction: str | None, folder: Path = FOLDER
) -> CalibrationTable | None:
    """The table that was measured with this model, prompt and instruction.

    If there is one for a model of this name and it does not hold, the log says why. Reads all
    weights if there is a table of this name.

    Args:
        template: `PromptEncoder.template` of the server.
        instruction: the server's instruction.
    """
    if (file := file_of(checkpoint.name, folder)) is None:
        return None
    table = read_table(file)
    weights = checkpoint.fingerprint()[:FINGERPRINT_DIGITS]
    if table.weights != weights:
        _reject(checkpoint, f"weights {table.weights}, and these are {weights}")
    elif table.instruction != instruction:
        # The operator's choice, and so nothing to warn of.
        _reject(checkpoint, "another instruction", logging.INFO)
    elif table.template != template:
        _reject(checkpoint, f"prompt {table.template}, and this one is {template}")
    else:
        return table
    return None


def _reject(checkpoint: Checkpoint, difference: str, level: int = logging.WARNING) -> None:
    _log.log(
        level,
        "the calibration that ships for %s was measured with %s: results get no normalized_score; "
        "`rankd calibrate --platt` makes a calibration for this server",
        checkpoint.name,
        difference,
    )
