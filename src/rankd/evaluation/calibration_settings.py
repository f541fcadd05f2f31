"""The settings of `rankd calibrate`: TOML that `rankd serve --config` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from rankd import __version__
from rankd.evaluation.calibration import CalibrationResult


def to_toml(about: Mapping[str, Any], results: Sequence[CalibrationResult], own: str | None) -> str:
    """One `[calibration.NAME]` table per instruction, and `[instructions]` for new texts.

    Args:
        about: what decides the scores; see `Scorer.about`.
        own: the text of the server's own instruction; None if it is unknown.
    """
    lines = [f"# Written by rankd {__version__} calibrate."]
    if "url" in about:
        lines.append(
            f"# Measured at {about['url']}, which calls its model {about['model']!r}. The model "
            "itself is unknown, so the server cannot check it against this file."
        )
    new = [result.group for result in results if result.group.is_new and result.has_settings]
    if new:
        lines += ["", "# Instructions without a name. Rename them here and in [calibration]."]
        lines += ["[instructions]"]
        lines += [f"{_string(group.name)} = {_string(group.instruction or '')}" for group in new]
    for result in results:
        lines += ["", *_table(result, about, own)]
    return "\n".join([*lines, ""])


def _table(result: CalibrationResult, about: Mapping[str, Any], own: str | None) -> list[str]:
    group = result.group
    lines = [_comment(result)]
    if not result.has_settings:
        return [*lines, f"# No setting for {_string(group.name)} reaches what was asked for."]
    lines.append(f"[calibration.{_string(group.name)}]")
    if result.threshold is not None:
        lines.append(f"threshold = {result.threshold.value!r}")
    if result.platt is not None and result.platt_is_usable:
        slope, intercept = (float(f"{number:.6g}") for number in result.platt)
        lines.append(f"platt = {{ slope = {slope!r}, intercept = {intercept!r} }}")
    if "url" not in about:
        lines.append(f"model = {_string(about['model'])}")
    instruction = own if group.instruction is None else group.instruction
    if instruction is not None:
        lines.append(f"instruction = {_string(instruction)}")
    return lines


def _comment(result: CalibrationResult) -> str:
    group, cut = result.group, result.threshold
    effect = (
        f"F1 {cut.f1:.3f}, precision {cut.precision:.3f}, recall {cut.recall:.3f}, " if cut else ""
    )
    return (
        f"# {len(group.pairs)} judged pairs, {sum(group.relevant)} relevant: {effect}"
        f"Brier {result.raw.brier:.3f}, ECE {result.raw.ece:.3f}"
    )


def _string(value: str) -> str:
    """A TOML string. JSON's is the same but for DEL, which TOML wants escaped."""
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
