"""The judge of the chaos test sees what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from corpus import DOCUMENTS, Calm, Wanted
from judge import FAULTS, PART, REFUSED, RIGHT, UNDOCUMENTED, WRONG, judge
from ledger import Ledger
from lines import Answer
from tongues import OPENAI, TONGUES, Tongue

CALM: Calm = {(0, 0): -2.0, (0, 1): 3.0, (0, 2): 0.5, (2, 0): 1.0}
PAIRS = ((0, 0), (0, 1), (0, 2))
TEI = next(tongue for tongue in TONGUES if tongue.name == "tei")
SCORE = next(tongue for tongue in TONGUES if tongue.name == "vllm score")


def rows(*found: tuple[int, float], **fields: Any) -> dict[str, Any]:
    return {
        "results": [{"index": index, "relevance_score": number} for index, number in found],
        **fields,
    }


def ending(
    said: Any,
    wanted: Wanted,
    status: int = 200,
    *,
    tongue: Tongue = OPENAI,
    headers: dict[str, str] | None = None,
) -> str:
    answer = Answer(status, headers or {}, json.dumps(said).encode())
    return judge(tongue, wanted, answer, CALM)[0]


ALL = Wanted(PAIRS, logits=True)
BEST = Wanted(PAIRS, top=2, logits=True)
IN_PART = Wanted(PAIRS, logits=True, extras={"partial": True, "timeout_ms": 20})
RIGHT_ROWS = ((1, 3.0), (2, 0.5), (0, -2.0))


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        (rows(*RIGHT_ROWS), ALL, RIGHT),
        (rows((1, 3.00009), (2, 0.49991), (0, -2.0)), ALL, RIGHT),
        (rows((1, 3.0003), (2, 0.5), (0, -2.0)), ALL, WRONG),
        (rows((1, 3.0), (0, 0.5), (2, -2.0)), ALL, WRONG),
        (rows((2, 0.5), (1, 3.0), (0, -2.0)), ALL, WRONG),
        (rows((1, 3.0), (2, 0.5)), ALL, WRONG),
        (rows((1, 3.0), (1, 3.0), (0, -2.0)), ALL, WRONG),
        (rows((1, 3.0), (2, 0.5), (3, -2.0)), ALL, WRONG),
        (rows((1, 3.0), (2, 0.5)), BEST, RIGHT),
        (rows((1, 3.0), (0, -2.0)), BEST, WRONG),
        (rows(*RIGHT_ROWS), BEST, WRONG),
        (rows((1, 3.0)), IN_PART, WRONG),
        (rows((1, 3.0), meta={"not_scored": [0, 2]}), IN_PART, PART),
        (rows((1, 3.0), meta={"not_scored": [0]}), IN_PART, WRONG),
        (rows((1, 3.0), meta={"not_scored": [0, 2]}), ALL, WRONG),
        ({"results": None}, ALL, WRONG),
        ({}, ALL, WRONG),
    ],
)
def test_an_answer_is_right_or_it_is_not(said: Any, wanted: Wanted, expected: str) -> None:
    assert ending(said, wanted) == expected


def test_scores_are_compared_as_precisely_as_logits() -> None:
    def said(change: float) -> dict[str, Any]:
        shown = [
            (one, float(f"{1 / (1 + math.exp(-logit - change)):.7g}")) for one, logit in RIGHT_ROWS
        ]
        return rows(*shown)

    wanted = Wanted(PAIRS)

    assert [ending(said(change), wanted) for change in (0, 9e-5, 2e-4)] == [RIGHT, RIGHT, WRONG]


def test_a_document_with_another_ones_text_is_wrong() -> None:
    def said(text: str) -> list[dict[str, Any]]:
        return [
            {"index": index, "score": number, "text": text if index == 1 else DOCUMENTS[index]}
            for index, number in RIGHT_ROWS
        ]

    assert ending(said(DOCUMENTS[1]), ALL, tongue=TEI) == RIGHT
    assert ending(said(DOCUMENTS[2]), ALL, tongue=TEI) == WRONG


def test_what_comes_in_the_order_of_the_request_has_to() -> None:
    def said(*found: tuple[int, float]) -> dict[str, Any]:
        return {"data": [{"index": index, "score": number} for index, number in found]}

    assert ending(said((0, -2.0), (1, 3.0), (2, 0.5)), ALL, tongue=SCORE) == RIGHT
    assert ending(said(*RIGHT_ROWS), ALL, tongue=SCORE) == WRONG


@pytest.mark.parametrize(
    ("status", "message", "headers", "wanted", "expected"),
    [
        (429, "wait", {"retry-after": "3"}, ALL, REFUSED),
        (429, "wait", {}, ALL, UNDOCUMENTED),
        (503, "away", {"retry-after": "3"}, ALL, REFUSED),
        (503, "", {"retry-after": "3"}, ALL, UNDOCUMENTED),
        (504, "late", {}, IN_PART, REFUSED),
        (504, "late", {}, ALL, UNDOCUMENTED),
        (500, "a bug", {}, ALL, UNDOCUMENTED),
        (400, "no", {}, ALL, UNDOCUMENTED),
        (400, "request r ended the engine twice, ...", {}, ALL, REFUSED),
    ],
)
def test_a_refusal_is_documented_or_it_is_not(
    status: int, message: str, headers: dict[str, str], wanted: Wanted, expected: str
) -> None:
    assert ending({"message": message}, wanted, status, headers=headers) == expected


def test_every_dialect_writes_what_it_was_given() -> None:
    for tongue in TONGUES:
        body = tongue.body(Wanted(PAIRS, extras={"cache": False}))

        assert body["cache"] is False
        assert all(text in json.dumps(body) for text in ("software does harm",))


def test_a_request_that_ends_twice_or_never_is_noticed() -> None:
    ledger = Ledger()
    once, never, twice = (ledger.open(kind) for kind in ("once", "never", "twice"))
    ledger.close("once", once, RIGHT)
    for _ in range(2):
        ledger.close("twice", twice, FAULTS[0], "said so")

    assert never == "never-1"
    assert ledger.unaccounted == {"never": 1, "twice": -1}
    assert ledger.complaints == ["twice-1: wrong scores: said so"] * 2
