"""Scores of relevant documents and of the others, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankd.types import sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rankd.evaluation.calibrate import Calibrated

_BINS = 20

# Told apart by readers who see no red and green, and in black and white.
_RELEVANT, _OTHER = "#0b6e99", "#e0a458"


def draw(file: Path, found: Sequence[Calibrated]) -> None:
    """One row for each instruction: both distributions, and how reliable scores are.

    Args:
        file: its ending chooses between PNG and SVG.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(found), 2, squeeze=False)
    for (scores, reliability), one in zip(rows, found, strict=True):
        _distributions(scores, one)
        _reliability(reliability, one)
    # No date, no random ids: the same pairs shall give the same file.
    svg = file.suffix.lower() == ".svg"
    with rc_context({"svg.hashsalt": "rankd"}):
        figure.savefig(file, metadata={"Date": None} if svg else None)


def _distributions(axes: Axes, one: Calibrated) -> None:
    pairs = list(zip(one.logits, one.group.relevant, strict=True))
    right = [sigmoid(logit) for logit, relevant in pairs if relevant]
    wrong = [sigmoid(logit) for logit, relevant in pairs if not relevant]
    for scores, label, color in (
        (wrong, "not relevant", _OTHER),
        (right, "relevant", _RELEVANT),
    ):
        # Shares, so that the rarer kind is not lost beside the other.
        axes.hist(
            scores,
            bins=_BINS,
            range=(0, 1),
            weights=[1 / len(scores)] * len(scores),
            alpha=0.65,
            color=color,
            label=f"{label} ({len(scores):,})",
        )
    if one.threshold is not None:
        label = f"threshold {one.threshold.value:.3g}"
        axes.axvline(one.threshold.value, color="black", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="relevance score", ylabel="share of its kind", xlim=(0, 1))
    axes.set_title(f"{one.group.name}: scores", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _reliability(axes: Axes, one: Calibrated) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for reliability, label, color in (
        (one.raw, "raw", _RELEVANT),
        (one.scaled, "Platt, held out", _OTHER),
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
    axes.set(xlabel="mean score of a bin", ylabel="share that is relevant")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.set_title(f"{one.group.name}: reliability", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
