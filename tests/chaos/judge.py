"""Whether an answer is right, a refusal is one that docs/api.md knows, or neither."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from corpus import TOLERANCE, Calm, Wanted
from lines import Answer
from tongues import Found, Tongue

RIGHT = "answered, every score right"
PART = "answered in part (deadline), every score right"
REFUSED = "refused as documented"
ANSWERED = "answered"
LEFT = "the client left"
WRONG = "wrong scores"
LOST = "lost: the connection ended before the answer did"
HANG = "hang: no answer at all"
UNDOCUMENTED = "an answer that docs/api.md does not know"

FAULTS = (WRONG, LOST, HANG, UNDOCUMENTED)

# Statuses with which a well-formed request that is admitted may be refused, and whether the
# answer must say when to come again.
_AGAIN = {429: True, 503: True, 504: False}

# Seven digits go on the wire.
_ROUNDING = 1e-6


def judge(tongue: Tongue, wanted: Wanted, answer: Answer, calm: Calm) -> tuple[str, str]:
    """What became of a well-formed request, and what is wrong with it, if anything."""
    try:
        said = json.loads(answer.body)
    except ValueError:
        return UNDOCUMENTED, f"{answer.status}: the answer is not JSON: {answer.body[:200]!r}"
    if answer.status != 200:
        return _refusal(wanted, answer, said)
    try:
        found = tongue.read(said)
    except (KeyError, TypeError, IndexError) as problem:
        return WRONG, f"the answer of {tongue.name} cannot be read: {problem!r}"
    unscored = _unscored(said) if wanted.extras.get("partial") else []
    complaint = what_is_wrong(tongue, wanted, found, unscored, calm)
    if complaint:
        return WRONG, f"{tongue.name}: {complaint}"
    return (PART if unscored else RIGHT), ""


def _unscored(said: Any) -> list[int]:
    return said.get("meta", {}).get("not_scored", []) if isinstance(said, dict) else []


def _refusal(wanted: Wanted, answer: Answer, said: Any) -> tuple[str, str]:
    message = said.get("message") if isinstance(said, dict) else None
    shown = f"{answer.status}: {message!r}"
    if not isinstance(message, str) or not message:
        return UNDOCUMENTED, shown
    if answer.status == 400 and "ended the engine twice" in message:
        return REFUSED, "400 poison_request"
    if answer.status not in _AGAIN or (answer.status == 504 and "timeout_ms" not in wanted.extras):
        return UNDOCUMENTED, shown
    if _AGAIN[answer.status] and not answer.headers.get("retry-after", "").isdigit():
        return UNDOCUMENTED, f"{shown} without Retry-After"
    return REFUSED, str(answer.status)


def what_is_wrong(
    tongue: Tongue,
    wanted: Wanted,
    found: Sequence[Found],
    unscored: Sequence[int],
    calm: Calm,
) -> str:
    """A sentence, or nothing: indices, count, scores, texts and order as they must be."""
    count = len(wanted.pairs)
    places = [one.index for one in found]
    rest = set(range(count)) - set(unscored)
    if len(set(places)) < len(places) or not rest.issuperset(places):
        return f"indices {places} of {count} documents, {list(unscored)} not scored"
    if len(places) != min(wanted.top or count, len(rest)):
        return f"{len(places)} results of {len(rest)}, wanted were {wanted.top or 'all'}"
    if not tongue.best_first and places != sorted(places):
        return f"not in the order of the request: {places}"
    raw = tongue.logits == "always" or (tongue.logits != "never" and wanted.logits)
    for one in found:
        logit = calm[wanted.pairs[one.index]]
        if not _agrees(one.number, logit, raw=raw):
            return f"document {one.index} has {one.number}, its logit when calm was {logit}"
        if one.text is not None and one.text != wanted.texts[one.index]:
            return f"document {one.index} comes with another one's text"
    return _order(wanted, found, rest, calm) if tongue.best_first else ""


def _agrees(number: float, logit: float, *, raw: bool) -> bool:
    low, high = logit - TOLERANCE, logit + TOLERANCE
    if not raw:
        low, high = (1 / (1 + math.exp(-bound)) for bound in (low, high))
    slack = _ROUNDING * abs(number)
    return low - slack <= number <= high + slack


def _order(wanted: Wanted, found: Sequence[Found], rest: set[int], calm: Calm) -> str:
    """Best first, as printed; and whoever is left out is not better than who is not."""
    numbers = [one.number for one in found]
    if numbers != sorted(numbers, reverse=True):
        return f"not best first: {numbers}"
    logits = [calm[wanted.pairs[one.index]] for one in found]
    left_out = [calm[wanted.pairs[place]] for place in rest - {one.index for one in found}]
    for better, worse in zip(logits, [*logits[1:], max(left_out, default=-math.inf)], strict=True):
        if worse > better + 2 * TOLERANCE:
            return f"a document of logit {better} stands before one of {worse}"
    return ""
