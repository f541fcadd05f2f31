"""How large an answer will be, before the work for it begins.

Answers that repeat documents can be many times larger than their request: a hundred queries may
share one document.
"""

from __future__ import annotations

from rankd.dialects.resolved import ResolvedRequest
from rankd.errors import TooLarge
from rankd.telemetry import metrics


def min_answer_bytes(request: ResolvedRequest, *, echoes: bool = False) -> int:
    """Lower bound of the bytes with which an answer repeats documents.

    Args:
        echoes: the answer repeats them even if the request does not ask for it.
    """
    options = request.answer
    if options.threshold is not None or not (options.return_documents or echoes):
        return 0  # A threshold may leave out all of them.
    # In UTF-8 a character has a byte or more. The best documents may be the shortest.
    return sum(sum(sorted(map(len, rank.documents))[: options.top_n]) for rank in request.ranks)


def refuse_large_answer(size: int, limit: int) -> None:
    """Raise `TooLarge` if an answer of so many bytes is over the limit of --max-response-bytes."""
    if size > limit:
        raise large_answer(size, limit)


def large_answer(size: int, limit: int) -> TooLarge:
    metrics.REFUSED.labels("response_bytes").inc()
    return TooLarge(
        f"the answer would have {size:,} bytes or more, because it repeats documents; the limit is "
        f'{limit:,}: send "return_documents": false, or fewer requests or documents',
        param="return_documents",
    )
