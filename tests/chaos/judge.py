"""Decides whether an answer is right, a refusal that docs/api.md documents, or a fault."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from api_formats import ApiFormat, ResultRow
from connections import HttpAnswer
from corpus import TOLERANCE, Baseline, ChaosRequest

RIGHT = "answered, every score right"
PART = "partial answer (deadline), every score right"
REFUSED = "refused as documented"
ANSWERED = "answered"
LEFT = "the client disconnected"
WRONG = "wrong scores"
LOST = "lost: the connection ended before the answer was complete"
HANG = "hang: no answer"
UNDOCUMENTED = "an answer that docs/api.md does not document"

FAULTS = (WRONG, LOST, HANG, UNDOCUMENTED)

# Statuses that a valid request may get, and whether the answer needs Retry-After.
_NEEDS_RETRY_AFTER = {429: True, 503: True, 504: False}

# Scores are sent with seven digits.
_ROUNDING = 1e-6


def judge(
    api: ApiFormat, request: ChaosRequest, answer: HttpAnswer, baseline: Baseline
) -> tuple[str, str]:
    """The outcome of a valid request, and the reason if it is not right."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return UNDOCUMENTED, f"{answer.status}: the answer is not JSON: {answer.body[:200]!r}"
    if answer.status != 200:
        return _refusal(request, answer, body)
    try:
        rows = api.read(body)
    except (KeyError, TypeError, IndexError) as error:
        return WRONG, f"the answer of {api.name} cannot be read: {error!r}"
    unscored = _unscored(body) if request.extras.get("partial") else []
    mistake = find_mistake(api, request, rows, unscored, baseline)
    if mistake:
        return WRONG, f"{api.name}: {mistake}"
    return (PART if unscored else RIGHT), ""


def _unscored(body: Any) -> list[int]:
    return body.get("meta", {}).get("not_scored", []) if isinstance(body, dict) else []


def _refusal(request: ChaosRequest, answer: HttpAnswer, body: Any) -> tuple[str, str]:
    message = body.get("message") if isinstance(body, dict) else None
    reason = f"{answer.status}: {message!r}"
    if not isinstance(message, str) or not message:
        return UNDOCUMENTED, reason
    if answer.status == 400 and "ended the engine twice" in message:
        return REFUSED, "400 poison_request"
    if answer.status not in _NEEDS_RETRY_AFTER or (
        answer.status == 504 and "timeout_ms" not in request.extras
    ):
        return UNDOCUMENTED, reason
    if _NEEDS_RETRY_AFTER[answer.status] and not answer.headers.get("retry-after", "").isdigit():
        return UNDOCUMENTED, f"{reason} without Retry-After"
    return REFUSED, str(answer.status)


def find_mistake(
    api: ApiFormat,
    request: ChaosRequest,
    rows: Sequence[ResultRow],
    unscored: Sequence[int],
    baseline: Baseline,
) -> str:
    """Check indices, count, scores, texts and order; "" if all are right."""
    count = len(request.pairs)
    indices = [row.index for row in rows]
    scored = set(range(count)) - set(unscored)
    if len(set(indices)) < len(indices) or not scored.issuperset(indices):
        return f"indices {indices} of {count} documents, {list(unscored)} not scored"
    if len(indices) != min(request.top or count, len(scored)):
        return f"{len(indices)} results of {len(scored)}, expected {request.top or 'all'}"
    if not api.best_first and indices != sorted(indices):
        return f"not in request order: {indices}"
    raw = api.logits == "always" or (api.logits != "never" and request.logits)
    for row in rows:
        logit = baseline[request.pairs[row.index]]
        if not _agrees(row.number, logit, raw=raw):
            return f"document {row.index} has {row.number}, its logit in the baseline was {logit}"
        if row.text is not None and row.text != request.texts[row.index]:
            return f"document {row.index} has the text of another document"
    return _order_mistake(request, rows, scored, baseline) if api.best_first else ""


def _agrees(number: float, logit: float, *, raw: bool) -> bool:
    low, high = logit - TOLERANCE, logit + TOLERANCE
    if not raw:
        low, high = (1 / (1 + math.exp(-bound)) for bound in (low, high))
    slack = _ROUNDING * abs(number)
    return low - slack <= number <= high + slack


def _order_mistake(
    request: ChaosRequest, rows: Sequence[ResultRow], scored: set[int], baseline: Baseline
) -> str:
    """Check that rows are best first, and that no omitted document is better than a row."""
    numbers = [row.number for row in rows]
    if numbers != sorted(numbers, reverse=True):
        return f"not best first: {numbers}"
    logits = [baseline[request.pairs[row.index]] for row in rows]
    omitted = [baseline[request.pairs[index]] for index in scored - {row.index for row in rows}]
    for better, worse in zip(logits, [*logits[1:], max(omitted, default=-math.inf)], strict=True):
        if worse > better + 2 * TOLERANCE:
            return f"a document with logit {better} is before one with {worse}"
    return ""
