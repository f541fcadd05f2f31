"""Score thresholds and calibration: who sets them, what they leave out, what responses say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.types import sigmoid
from support.scoring_endpoints import (
    ANIMALS,
    BODY,
    QUERY,
    TEXTS,
    Json,
    counted,
    every_endpoint,
    numbers,
    opened,
)

# Endpoints whose responses have one score per document.
ONE_SCORE_PER_DOCUMENT = ("/weaviate/", "/deepinfra/", "/v1/score", "/invocations")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A server without thresholds."""
    with opened() as client:
        yield client


def kept(path: str, answer: Any) -> list[float]:
    """The scores in the part of a response that a threshold shortens."""
    return numbers(answer, "ranked_scores") if "/simple" in path else numbers(answer)


@every_endpoint
def test_documents_below_the_threshold_of_the_request_are_left_out(
    client: TestClient, path: str, body: Json
) -> None:
    body = body | {"instruction": " ".join(ANIMALS[:2])}  # These two score higher.
    whole = client.post(path, json=body)
    scores = sorted(kept(path, whole.json()), reverse=True)
    assert scores[0] > scores[-1]

    reply = client.post(path, json=body | {"score_threshold": scores[0]})

    if path.startswith(ONE_SCORE_PER_DOCUMENT):
        assert kept(path, reply.json()) == kept(path, whole.json())
        assert reply.headers["x-rankd-warnings"].startswith("score_threshold has no effect here")
        assert "x-rankd-below-threshold" not in reply.headers
        return
    best = [score for score in scores if score == scores[0]]
    assert kept(path, reply.json()) == best
    assert reply.headers["x-rankd-below-threshold"] == str(len(scores) - len(best))
    assert "x-rankd-warnings" not in reply.headers
    assert "x-rankd-below-threshold" not in whole.headers
    if "/simple" in path:
        assert numbers(reply.json(), "scores") == numbers(whole.json(), "scores")


@pytest.fixture(scope="module")
def strict() -> Iterator[TestClient]:
    """A server with thresholds in its configuration."""
    # With the server's own instruction, Beijing has 0.90 and the others are below 0.1.
    with opened(
        instructions={"lions": "Lions hunt at night.", "odd": "Lions hunt."},
        calibration={
            "default": {"threshold": 0.5},
            "lions": {"threshold": 0.9, "platt": {"slope": 0.5, "intercept": -1.0}},
        },
        aliases={
            "loose": {"score_threshold": 0.0},
            "firm": {"preset": "odd", "score_threshold": 0.9},
            "mixed": {"preset": "lions"},
        },
    ) as app:
        yield app


def answer(client: TestClient, path: str = "/v1/rerank", **more: Any) -> Json:
    reply = client.post(path, json=BODY | more)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


@pytest.mark.parametrize(
    ("fields", "threshold"),
    [
        ({}, 0.5),
        ({"preset": "lions"}, 0.9),
        ({"model": "mixed"}, 0.9),
        ({"instruction": "Lions hunt at night."}, 0.9),
        ({"instruction": Settings().instruction}, 0.5),
        ({"instruction": "Another."}, None),
        ({"preset": "odd"}, None),
        ({"model": "firm"}, 0.9),
        ({"model": "loose"}, 0.0),
        ({"model": "loose", "preset": "lions"}, 0.0),
        ({"score_threshold": 0.3}, 0.3),
        ({"model": "firm", "score_threshold": 0.3}, 0.3),
        ({"preset": "lions", "score_threshold": 0}, 0.0),
    ],
)
def test_the_threshold_comes_from_request_then_alias_then_calibration(
    strict: TestClient, fields: Json, threshold: float | None
) -> None:
    reply = answer(strict, **fields)
    whole = answer(strict, **fields | {"score_threshold": 0})
    every = numbers(whole["results"])

    assert len(every) == 3
    assert reply["meta"].get("score_threshold") == threshold
    expected = [score for score in every if threshold is None or score >= threshold]
    assert numbers(reply["results"]) == expected
    assert reply["meta"].get("below_threshold") == (
        None if threshold is None else len(every) - len(expected)
    )
    assert "warnings" not in whole["meta"]


def test_documents_left_out_by_configuration_are_a_warning_in_every_dialect(
    strict: TestClient,
) -> None:
    own = answer(strict)
    tei = strict.post("/tei/rerank", json={"query": QUERY, "texts": TEXTS})

    warning = (
        "2 of 3 documents scored below 0.5, the threshold configured here, and are left out; "
        "send a score_threshold of your own to see them"
    )
    assert own["meta"]["warnings"] == [warning]
    assert tei.headers["x-rankd-warnings"] == warning
    assert tei.headers["x-rankd-below-threshold"] == "2"
    assert len(tei.json()) == 1


def test_responses_with_one_score_per_document_keep_all_of_them(strict: TestClient) -> None:
    body = {"text_1": QUERY, "text_2": TEXTS}

    assert len(strict.post("/v1/score", json=body).json()["data"]) == 3
    assert len(strict.post("/weaviate/rerank", json=BODY).json()["scores"]) == 3
    for path, own in (("/v1/score", body), ("/weaviate/rerank", BODY)):
        assert strict.post(path, json=own | {"score_threshold": 5}).status_code == 200


def test_a_batch_applies_the_threshold_to_each_query(strict: TestClient) -> None:
    body = {"queries": [QUERY, "Lions hunt at night"], "documents": TEXTS, "score_threshold": 0.5}

    reply = strict.post("/simple/batch_rerank", json=body)

    first, second = reply.json()["results"]
    assert first["ranked_documents"] == [TEXTS[1]]
    assert second["ranked_documents"] == [TEXTS[0]]
    assert len(first["scores"]) == len(second["scores"]) == 3
    assert reply.headers["x-rankd-below-threshold"] == "4"


def test_documents_left_out_are_counted(strict: TestClient) -> None:
    def count() -> float:
        name = "rankd_below_threshold_documents_total"
        return counted(strict.get("/metrics").text, f"{name} ")[f"{name} "]

    before = count()
    answer(strict)
    answer(strict, score_threshold=0)
    strict.post("/simple/batch_rerank", json={"queries": [QUERY], "documents": TEXTS})

    assert count() == before + 4


def test_top_n_applies_after_the_threshold(strict: TestClient) -> None:
    one = answer(strict, score_threshold=0, top_n=2)
    two = answer(strict, score_threshold=0.5, top_n=2)

    assert len(one["results"]) == 2
    assert len(two["results"]) == 1
    assert two["meta"]["below_threshold"] == 2


def test_the_threshold_of_a_request_is_on_the_scale_of_its_response(strict: TestClient) -> None:
    logits = numbers(answer(strict, score_threshold=-100, raw_scores=True)["results"])

    reply = answer(strict, score_threshold=logits[1], raw_scores=True)

    assert numbers(reply["results"]) == logits[:2]
    assert reply["meta"]["score_threshold"] == logits[1]


def test_a_configured_threshold_is_a_score_even_if_the_response_shows_logits(
    strict: TestClient,
) -> None:
    # One document has a score below, and a logit above 0.9.
    for more, threshold in (({"preset": "lions"}, 0.9), ({"model": "firm"}, 0.9), ({}, 0.5)):
        scores = answer(strict, **more)["results"]
        logits = answer(strict, raw_scores=True, **more)

        assert [row["index"] for row in logits["results"]] == [row["index"] for row in scores]
        assert logits["meta"]["score_threshold"] == threshold


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "score_threshold must be between 0 and 1, as scores are, not 1.5"),
        (-0.1, "score_threshold must be between 0 and 1, as scores are, not -0.1"),
        ("much", 'score_threshold must be a number, not a string ("much")'),
        (True, "score_threshold must be a number, not a boolean (true)"),
        ("inf", 'score_threshold must be a number, not a string ("inf")'),
    ],
)
def test_a_threshold_that_no_score_can_have_is_a_400(
    strict: TestClient, value: Any, message: str
) -> None:
    def scored() -> float:
        name = "rankd_documents_total"
        return counted(strict.get("/metrics").text, f"{name} ")[f"{name} "]

    before = scored()
    reply = strict.post("/v1/rerank", json=BODY | {"score_threshold": value})

    assert scored() == before
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == message
    assert reply.json()["error"]["param"] == "score_threshold"


def test_normalized_score_is_there_with_return_details(strict: TestClient) -> None:
    more: Json = {"preset": "lions", "score_threshold": 0}
    plain = answer(strict, **more)
    logits = numbers(answer(strict, **more | {"score_threshold": -100}, raw_scores=True)["results"])

    reply = answer(strict, **more, return_details=True)

    assert numbers(reply["results"]) == numbers(plain["results"])
    assert numbers(reply["results"], "normalized_score") == pytest.approx(
        [sigmoid(0.5 * logit - 1) for logit in logits], abs=1e-6
    )
    assert not numbers(plain["results"], "normalized_score")


def test_without_a_calibration_there_is_no_normalized_score(strict: TestClient) -> None:
    for more in ({}, {"preset": "odd"}, {"instruction": "Another."}):
        assert not numbers(answer(strict, return_details=True, **more), "normalized_score")
