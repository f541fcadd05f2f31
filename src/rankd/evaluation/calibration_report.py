"""The report of `rankd calibrate`: tables and remarks for a terminal, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from rankd import __version__
from rankd.evaluation.calibration import CalibrationResult
from rankd.evaluation.cross_validation import FOLDS
from rankd.evaluation.options import CalibrateOptions
from rankd.evaluation.thresholds import best_f1

About = Mapping[str, Any]
"""What decides the scores; see `Scorer.about`."""


def to_text(about: About, results: Sequence[CalibrationResult], options: CalibrateOptions) -> str:
    lines = [_heading(about, results), "", *_table(results), "", _method(options)]
    for result in results:
        lines += [f"{result.group.name}: {remark}" for remark in _remarks(result, options)]
    return "\n".join(lines)


def _heading(about: About, results: Sequence[CalibrationResult]) -> str:
    origin = about.get("url") or f"{about['engine']} on {about['device']}, {about['dtype']}"
    pairs = sum(len(result.group.pairs) for result in results)
    return f"{about['model'] or 'unnamed'} ({origin}): {pairs:,} judged pairs"


def _table(results: Sequence[CalibrationResult]) -> list[str]:
    width = max(11, *(len(result.group.name) for result in results))
    lines = [
        f"{'instruction':<{width}}  pairs  relevant  threshold  precision  recall     F1  "
        "held-out F1    AUC  Brier    ECE",
        *(_row(result, width) for result in results),
    ]
    if any(result.platt for result in results):
        lines += [
            "",
            f"{'Platt':<{width}}    slope  intercept  Brier raw  held out  ECE raw  held out",
            *(_platt_row(result, width) for result in results if result.platt),
        ]
    return lines


def _row(result: CalibrationResult, width: int) -> str:
    cut, held_out = result.threshold, result.held_out
    chosen = (
        f"{cut.value:>9.7g}  {cut.precision:>9.3f}  {cut.recall:>6.3f}  {cut.f1:>5.3f}"
        if cut
        else f"{'none':>9}  {'-':>9}  {'-':>6}  {'-':>5}"
    )
    return (
        f"{result.group.name:<{width}}  {len(result.group.pairs):>5}  "
        f"{sum(result.group.relevant):>8}  {chosen}  "
        f"{f'{held_out.f1:.3f}' if held_out else '-':>11}  {result.auc:>5.3f}  "
        f"{result.raw.brier:>5.3f}  {result.raw.ece:>5.3f}"
    )


def _platt_row(result: CalibrationResult, width: int) -> str:
    assert result.platt is not None
    brier = f"{result.scaled.brier:.3f}" if result.scaled else "-"
    ece = f"{result.scaled.ece:.3f}" if result.scaled else "-"
    return (
        f"{result.group.name:<{width}}  {result.platt.slope:>7.3f}  "
        f"{result.platt.intercept:>9.3f}  {result.raw.brier:>9.3f}  {brier:>8}  "
        f"{result.raw.ece:>7.3f}  {ece:>8}"
    )


def _method(options: CalibrateOptions) -> str:
    criterion = (
        f"the most recall at a precision of at least {options.precision:g}"
        if options.precision
        else "the best F1"
    )
    return (
        f"Thresholds: {criterion} on these pairs. ECE: {options.bins} bins of equal width.\n"
        f"Held out: {FOLDS} folds, each judged by what was learnt from the others; the pairs "
        "of a query\nstay in one fold."
    )


def _remarks(result: CalibrationResult, options: CalibrateOptions) -> list[str]:
    """Limits and problems of one instruction's figures."""
    remarks = []
    if result.threshold is None:
        best = best_f1(result.logits, result.group.relevant)
        remarks.append(
            f"no threshold keeps a precision of {options.precision:g}; "
            f"the best F1, {best.f1:.3f}, is at {best.value:.7g} with {best.precision:.3f}"
        )
    if result.held_out is None:
        remarks.append("too few queries, or too few precise ones, for held-out figures")
    if result.separated:
        reason = "; Platt's slope rests on its smoothing alone" if result.platt else ""
        remarks.append(f"no score lies on the wrong side{reason}: judge harder pairs")
    if result.platt and not result.platt_is_usable:
        remarks.append("scores rank the wrong way round; Platt scaling is not written")
    elif result.scaled and result.scaled.brier >= result.raw.brier:
        remarks.append("Platt scaling did not help on held-out queries")
    return remarks


def to_json(about: About, results: Sequence[CalibrationResult], options: CalibrateOptions) -> bytes:
    content = {
        "rankd": __version__,
        "about": about,
        "precision": options.precision,
        "relevant_from": options.relevant_from,
        "folds": FOLDS,
        "instructions": [_figures(result) for result in results],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _figures(result: CalibrationResult) -> dict[str, Any]:
    group = result.group
    return {
        "name": group.name,
        "instruction": group.instruction,
        "pairs": len(group.pairs),
        "relevant": sum(group.relevant),
        "queries": len({pair.query for pair in group.pairs}),
        "threshold": result.threshold and result.threshold._asdict(),
        "held_out": result.held_out and result.held_out._asdict(),
        "auc": result.auc,
        "reliability": asdict(result.raw),
        "platt": result.platt and result.platt._asdict(),
        "platt_held_out": result.scaled and asdict(result.scaled),
        "separated": result.separated,
    }
