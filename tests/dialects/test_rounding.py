"""Every number that an answer shows has at most seven digits, wherever it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.types import rounded
from support.calling import calling
from support.dialects import example, home
from support.servers import run

NUMBERS = {"relevance_score", "relevanceScore", "score", "logit", "normalized_score"}
NUMBER_LISTS = {"scores", "ranked_scores"}

QUERY = "What is the capital of China?"
DOCUMENTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]
BODY = {"query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def calibrated() -> Iterator[TestClient]:
    """A server with a calibration, so that results have a `normalized_score`."""
    platt = {"slope": 0.5, "intercept": -1.0}
    settings = Settings(engine="fake", calibration={"default": {"platt": platt}})
    with calling(settings) as client:
        yield client


def shown_numbers(value: Any) -> Iterator[float]:
    """Scores, logits and probabilities at any depth of an answer."""
    if isinstance(value, list):
        for item in value:
            yield from shown_numbers(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in NUMBERS and isinstance(item, float):
                yield item
            elif name in NUMBER_LISTS and item and isinstance(item[0], float):
                yield from item
            else:
                yield from shown_numbers(item)


def digits(number: float) -> int:
    """Significant digits of the shortest literal that JSON writes for a number."""
    return len(Decimal(repr(number)).normalize().as_tuple().digits)


def has_seven_digits(answer: Any) -> None:
    numbers = list(shown_numbers(answer))
    assert numbers
    assert 4 < max(map(digits, numbers)) <= 7


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.123456789, 0.1234568),
        (0.00012345678912, 0.0001234568),
        (-12.345678912, -12.34568),
        (0.9999999999, 1.0),
        (1.23456789e-30, 1.234568e-30),
    ],
)
def test_a_number_is_rounded_to_seven_digits(number: float, shown: float) -> None:
    assert rounded(number) == shown
    assert len(repr(rounded(number))) <= 18


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_every_dialect_shows_seven_digits(calibrated: TestClient, dialect: Dialect) -> None:
    reply = calibrated.post(home(dialect), json=example(dialect))

    assert reply.status_code == 200, reply.text
    has_seven_digits(reply.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", BODY),
        ("/v1/rerank", BODY | {"raw_scores": True}),
        ("/v1/rerank", BODY | {"return_details": True}),
        ("/v1/score", {"text_1": QUERY, "text_2": DOCUMENTS}),
        ("/v1/score", {"text_1": QUERY, "text_2": DOCUMENTS, "use_activation": False}),
        ("/invocations", {"text_1": QUERY, "text_2": DOCUMENTS}),
        ("/v1/batch_rerank", {"queries": [QUERY], "documents": DOCUMENTS}),
        ("/simple/batch_rerank", {"queries": [QUERY], "documents": DOCUMENTS}),
    ],
)
def test_other_ways_to_scores_show_seven_digits(
    calibrated: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = calibrated.post(path, json=body)

    assert reply.status_code == 200, reply.text
    has_seven_digits(reply.json())


@pytest.mark.parametrize("options", [{}, {"raw_scores": True}, {"return_details": True}], ids=str)
def test_a_stream_shows_seven_digits(calibrated: TestClient, options: dict[str, Any]) -> None:
    accept = {"accept": "application/x-ndjson"}
    reply = calibrated.post("/v1/rerank", json=BODY | options, headers=accept)

    *results, answer = [json.loads(line) for line in reply.text.splitlines()]
    assert len(results) == len(DOCUMENTS)
    has_seven_digits(results)
    has_seven_digits(answer)
    assert ("normalized_score" in results[0]) == ("return_details" in options)


def test_a_threshold_is_compared_with_the_number_that_is_shown(calibrated: TestClient) -> None:
    """A client may send back a score that it has seen, and keeps that document."""
    scores = [result["relevance_score"] for result in results_of(calibrated, BODY)]

    for kept, score in enumerate(scores, 1):
        assert len(results_of(calibrated, BODY | {"score_threshold": score})) == kept


def results_of(client: TestClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = client.post("/v1/rerank", json=body).json()["results"]
    return results


@pytest.mark.parametrize("options", [(), ("--raw-scores",)], ids=str)
def test_the_command_line_shows_seven_digits(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "documents"
    file.write_text("\n".join(DOCUMENTS))

    ended = run("rerank", "--query", QUERY, str(file), *options)

    assert ended.returncode == 0, ended.stderr
    has_seven_digits([json.loads(line) for line in ended.stdout.splitlines()])
