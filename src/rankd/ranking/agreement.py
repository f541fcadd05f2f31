"""How far two scorings of the same documents agree."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rankd.types import sigmoids


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two scorings of N documents, compared.

    Attributes:
        same_top: whether the best document is the same.
        tau: Kendall's tau of the two orders, -1 to 1: 1 same order, -1 reversed; None for one
            document. Equal logits keep the order of the documents, as in answers.
        overlap: share of the best k documents that both have, 0 to 1.
        shift: mean of second minus first score, -1 to 1.
    """

    same_top: bool
    tau: float | None
    overlap: float
    shift: float


def agreement(first: Sequence[float], second: Sequence[float], k: int) -> Agreement:
    """Compare the logits of the same N >= 1 documents, in the same order of documents."""
    orders = [_order(logits) for logits in (first, second)]
    tops = [set(order[:k]) for order in orders]
    return Agreement(
        same_top=orders[0][0] == orders[1][0],
        tau=_tau(*orders),
        overlap=len(tops[0] & tops[1]) / len(tops[0]),
        shift=fmean(sigmoids(second)) - fmean(sigmoids(first)),
    )


def _order(logits: Sequence[float]) -> list[int]:
    """Indices of the documents, best first; equal logits keep their order."""
    return sorted(range(len(logits)), key=lambda index: -logits[index])


def _tau(first: Sequence[int], second: Sequence[int]) -> float | None:
    if len(first) < 2:
        return None
    position = {document: place for place, document in enumerate(second)}
    seen: list[int] = []
    inversions = 0
    for document in first:
        place = position[document]
        inversions += len(seen) - bisect_right(seen, place)
        insort(seen, place)
    return 1 - 4 * inversions / (len(first) * (len(first) - 1))
