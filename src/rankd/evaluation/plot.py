"""The picture of `rankd calibrate --picture`: score distributions and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankd.evaluation.calibration import CalibrationResult
from rankd.types import sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 20

# Distinguishable with red-green colour blindness and in black and white.
_RELEVANT, _OTHER = "#0b6e99", "#e0a458"


def draw(file: Path, results: Sequence[CalibrationResult]) -> None:
    """Draw one row per instruction: the scores of both classes, and the reliability diagram.

    Args:
        file: its suffix chooses the format, .png or .svg.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(results), 2, squeeze=False)
    for (left, right), result in zip(rows, results, strict=True):
        _distributions(left, result)
        _reliability(right, result)
    # Without a date and random ids, the same pairs give the same file.
    svg = file.suffix.lower() == ".svg"
    with rc_context({"svg.hashsalt": "rankd"}):
        figure.savefig(file, metadata={"Date": None} if svg else None)


def _distributions(axes: Axes, result: CalibrationResult) -> None:
    pairs = list(zip(result.logits, result.group.relevant, strict=True))
    right = [sigmoid(logit) for logit, relevant in pairs if relevant]
    wrong = [sigmoid(logit) for logit, relevant in pairs if not relevant]
    for scores, label, color in (
        (wrong, "not relevant", _OTHER),
        (right, "relevant", _RELEVANT),
    ):
        # Shares of each class, so that the rarer class stays visible.
        axes.hist(
            scores,
            bins=_BINS,
            range=(0, 1),
            weights=[1 / len(scores)] * len(scores),
            alpha=0.65,
            color=color,
            label=f"{label} ({len(scores):,})",
        )
    if result.threshold is not None:
        value = result.threshold.value
        label = f"threshold {value:.3g}"
        axes.axvline(value, color="black", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="relevance score", ylabel="share of its class", xlim=(0, 1))
    axes.set_title(f"{result.group.name}: scores", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _reliability(axes: Axes, result: CalibrationResult) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for reliability, label, color in (
        (result.raw, "raw", _RELEVANT),
        (result.scaled, "Platt, held out", _OTHER),
    ):
        if reliability is None:
            continue
        bins = [row for row in reliability.bins if row.pairs]
        axes.plot(
            [row.mean for row in bins if row.mean is not None],
            [row.relevant for row in bins if row.relevant is not None],
            marker="o",
            markersize=4,
            color=color,
            label=f"{label}: Brier {reliability.brier:.3f}, ECE {reliability.ece:.3f}",
        )
    axes.set(xlabel="mean score of the bin", ylabel="share of relevant pairs")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.set_title(f"{result.group.name}: reliability", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
