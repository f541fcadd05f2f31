"""The chaos test's judge recognizes every kind of mistake."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from api_formats import API_FORMATS, OPENAI, ApiFormat
from connections import HttpAnswer
from corpus import DOCUMENTS, Baseline, ChaosRequest
from judge import FAULTS, PART, REFUSED, RIGHT, UNDOCUMENTED, WRONG, judge
from ledger import Ledger

BASELINE: Baseline = {(0, 0): -2.0, (0, 1): 3.0, (0, 2): 0.5, (2, 0): 1.0}
PAIRS = ((0, 0), (0, 1), (0, 2))
TEI = next(api for api in API_FORMATS if api.name == "tei")
SCORE = next(api for api in API_FORMATS if api.name == "vllm score")


def body_of(*results: tuple[int, float], **fields: Any) -> dict[str, Any]:
    return {
        "results": [{"index": index, "relevance_score": number} for index, number in results],
        **fields,
    }


def outcome(
    body: Any,
    sent: ChaosRequest,
    status: int = 200,
    *,
    api: ApiFormat = OPENAI,
    headers: dict[str, str] | None = None,
) -> str:
    answer = HttpAnswer(status, headers or {}, json.dumps(body).encode())
    return judge(api, sent, answer, BASELINE)[0]


ALL = ChaosRequest(PAIRS, logits=True)
BEST = ChaosRequest(PAIRS, top=2, logits=True)
IN_PART = ChaosRequest(PAIRS, logits=True, extras={"partial": True, "timeout_ms": 20})
RIGHT_RESULTS = ((1, 3.0), (2, 0.5), (0, -2.0))


@pytest.mark.parametrize(
    ("body", "sent", "expected"),
    [
        (body_of(*RIGHT_RESULTS), ALL, RIGHT),
        (body_of((1, 3.00009), (2, 0.49991), (0, -2.0)), ALL, RIGHT),
        (body_of((1, 3.0003), (2, 0.5), (0, -2.0)), ALL, WRONG),
        (body_of((1, 3.0), (0, 0.5), (2, -2.0)), ALL, WRONG),
        (body_of((2, 0.5), (1, 3.0), (0, -2.0)), ALL, WRONG),
        (body_of((1, 3.0), (2, 0.5)), ALL, WRONG),
        (body_of((1, 3.0), (1, 3.0), (0, -2.0)), ALL, WRONG),
        (body_of((1, 3.0), (2, 0.5), (3, -2.0)), ALL, WRONG),
        (body_of((1, 3.0), (2, 0.5)), BEST, RIGHT),
        (body_of((1, 3.0), (0, -2.0)), BEST, WRONG),
        (body_of(*RIGHT_RESULTS), BEST, WRONG),
        (body_of((1, 3.0)), IN_PART, WRONG),
        (body_of((1, 3.0), meta={"not_scored": [0, 2]}), IN_PART, PART),
        (body_of((1, 3.0), meta={"not_scored": [0]}), IN_PART, WRONG),
        (body_of((1, 3.0), meta={"not_scored": [0, 2]}), ALL, WRONG),
        ({"results": None}, ALL, WRONG),
        ({}, ALL, WRONG),
    ],
)
def test_an_answer_is_right_partial_or_wrong(body: Any, sent: ChaosRequest, expected: str) -> None:
    assert outcome(body, sent) == expected


def test_scores_are_compared_as_precisely_as_logits() -> None:
    def body(change: float) -> dict[str, Any]:
        shown = [
            (index, float(f"{1 / (1 + math.exp(-logit - change)):.7g}"))
            for index, logit in RIGHT_RESULTS
        ]
        return body_of(*shown)

    sent = ChaosRequest(PAIRS)

    assert [outcome(body(change), sent) for change in (0, 9e-5, 2e-4)] == [RIGHT, RIGHT, WRONG]


def test_the_text_of_another_document_is_wrong() -> None:
    def body(text: str) -> list[dict[str, Any]]:
        return [
            {"index": index, "score": number, "text": text if index == 1 else DOCUMENTS[index]}
            for index, number in RIGHT_RESULTS
        ]

    assert outcome(body(DOCUMENTS[1]), ALL, api=TEI) == RIGHT
    assert outcome(body(DOCUMENTS[2]), ALL, api=TEI) == WRONG


def test_an_api_in_request_order_must_keep_it() -> None:
    def body(*results: tuple[int, float]) -> dict[str, Any]:
        return {"data": [{"index": index, "score": number} for index, number in results]}

    assert outcome(body((0, -2.0), (1, 3.0), (2, 0.5)), ALL, api=SCORE) == RIGHT
    assert outcome(body(*RIGHT_RESULTS), ALL, api=SCORE) == WRONG


@pytest.mark.parametrize(
    ("status", "message", "headers", "sent", "expected"),
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
def test_a_refusal_is_documented_or_a_fault(
    status: int, message: str, headers: dict[str, str], sent: ChaosRequest, expected: str
) -> None:
    assert outcome({"message": message}, sent, status, headers=headers) == expected


def test_every_api_format_writes_query_and_extra_fields() -> None:
    for api in API_FORMATS:
        body = api.body(ChaosRequest(PAIRS, extras={"cache": False}))

        assert body["cache"] is False
        assert "software does harm" in json.dumps(body)


def test_a_request_with_two_outcomes_or_none_is_counted() -> None:
    ledger = Ledger()
    once, never, twice = (ledger.open(kind) for kind in ("once", "never", "twice"))
    ledger.close("once", once, RIGHT)
    for _ in range(2):
        ledger.close("twice", twice, FAULTS[0], "reason")

    assert never == "never-1"
    assert ledger.unaccounted == {"never": 1, "twice": -1}
    assert ledger.faults == ["twice-1: wrong scores: reason"] * 2
