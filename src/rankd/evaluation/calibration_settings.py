"""The TOML of `rankd calibrate`: settings for `rankd serve --config`, and tables that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from rankd import __version__
from rankd.errors import BadSettings
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
    lines += _figures(result)
    if "url" not in about:
        lines.append(f"model = {_string(about['model'])}")
    instruction = own if group.instruction is None else group.instruction
    if instruction is not None:
        lines.append(f"instruction = {_string(instruction)}")
    return lines


def _figures(result: CalibrationResult) -> list[str]:
    """Threshold and Platt scaling, as far as there are any."""
    lines = []
    if result.threshold is not None:
        lines.append(f"threshold = {result.threshold.value!r}")
    if result.platt is not None and result.platt_is_usable:
        slope, intercept = (float(f"{number:.6g}") for number in result.platt)
        lines.append(f"platt = {{ slope = {slope!r}, intercept = {intercept!r} }}")
    return lines


def to_table(
    about: Mapping[str, Any], results: Sequence[CalibrationResult], pairs: str, digest: str
) -> str:
    """The table of `rankd.models.calibration_tables` for a model.

    Args:
        about: as of `to_toml`, of a model in this process.
        results: those of the server's own instruction.
        pairs: what the pairs are.
        digest: SHA-256 of their file, in hex.

    Raises:
        BadSettings: there are other instructions, or no usable Platt scaling.
    """
    if len(results) != 1 or results[0].group.instruction is not None:
        raise BadSettings("--table needs pairs of the server's own instruction only")
    [result] = results
    if not result.platt_is_usable:
        raise BadSettings("--table: the fit has no positive slope, so there is nothing to ship")
    facts = {
        "pairs": pairs,
        "sha256": digest,
        "judged": len(result.group.pairs),
        "relevant": sum(result.group.relevant),
        **{name: about[name] for name in ("rankd", "engine", "device", "dtype")},
        **_quality(result),
    }
    own = about["instruction"]
    lines = [
        f"# Written by rankd {__version__} calibrate --table.",
        *(f"{name} = {_string(about[name])}" for name in ("model", "weights", "template")),
        *([] if own is None else [f"instruction = {_string(own)}"]),
        *_figures(result),
        "",
        "[measured]",
        *(f"{name} = {_value(value)}" for name, value in facts.items()),
    ]
    return "\n".join([*lines, ""])


def _quality(result: CalibrationResult) -> dict[str, float]:
    """How good threshold and scaling are, rounded."""
    figures = {"auc": result.auc, "brier": result.raw.brier, "ece": result.raw.ece}
    if result.scaled is not None:
        figures |= {
            "held_out_brier": result.scaled.brier,
            "held_out_ece": result.scaled.ece,
        }
    if result.threshold is not None:
        figures |= {"f1": result.threshold.f1}
    if result.held_out is not None:
        figures |= {"held_out_f1": result.held_out.f1}
    return {name: round(value, 3) for name, value in figures.items()}


def _value(value: str | float) -> str:
    return _string(value) if isinstance(value, str) else repr(value)


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
