"""An answer in lines by thresholds, names and keys, and in chunks: as its last line says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.server.app import open_app

Json = dict[str, Any]

LINES = {"accept": "application/x-ndjson"}
# Two equal ones, and one that is read in chunks when it may be.
DOCUMENTS = [
    "Beijing is the capital of China.",
    "Bread is made of flour.",
    "Gravity attracts two bodies. " * 30 + "The capital is Beijing. " + "Bread and butter. " * 30,
    "Bread is made of flour.",
    "What is the capital of China? The capital of China is Beijing.",
]
BODY: Json = {"query": "What is the capital of China?", "documents": DOCUMENTS}
COUNTERS = ("documents", "cached_documents", "prompt_tokens", "cached_tokens", "search_units")


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with thresholds, names and presets of keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("acme = key-of-acme\nother = key-of-other\n")
    settings = Settings(
        engine="fake",
        instructions={"lions": "Lions hunt at night."},
        calibration={"lions": {"threshold": 0.5, "platt": {"slope": 0.5, "intercept": -1.0}}},
        aliases={"firm": {"score_threshold": 0.8}, "house/lions": {"preset": "lions"}},
        key_presets={"acme": "lions"},
        api_keys_file=keys,
    )
    with asyncio.Runner() as runner:
        context = open_app(settings)
        app = runner.run(context.__aenter__())
        yield TestClient(app, headers={"api-key": "key-of-other"})
        runner.run(context.__aexit__(None, None, None))


def streamed(client: TestClient, key: str = "key-of-other", **more: Any) -> tuple[list[Json], Json]:
    reply = client.post("/v1/rerank", json=BODY | more, headers=LINES | {"api-key": key})
    assert reply.status_code == 200, reply.text
    *scored_documents, answer = [json.loads(line) for line in reply.text.splitlines()]
    return scored_documents, answer


def whole(client: TestClient, key: str = "key-of-other", **more: Any) -> Json:
    found: Json = client.post("/v1/rerank", json=BODY | more, headers={"api-key": key}).json()
    return found


def counter(client: TestClient, name: str) -> int:
    text = client.get("/metrics").text
    return int(float(re.findall(rf"^rankd_{name}_total (\S+)$", text, re.MULTILINE)[0]))


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("key-of-other", {"score_threshold": 0.5}),
        ("key-of-other", {"score_threshold": 0.0, "raw_scores": True}),
        ("key-of-other", {"model": "firm"}),
        ("key-of-other", {"model": "house/lions"}),
        ("key-of-other", {"preset": "lions"}),
        ("key-of-acme", {}),
        ("key-of-acme", {"top_n": 1}),
    ],
    ids=str,
)
def test_a_verdict_below_the_threshold_has_no_line(
    judging: TestClient, key: str, more: Json
) -> None:
    every, _ = streamed(judging, key, **{**more, "score_threshold": -100, "raw_scores": True})
    before = counter(judging, "below_threshold_documents")
    scored_documents, answer = streamed(judging, key, **more)
    gained = counter(judging, "below_threshold_documents") - before
    alone = whole(judging, key, **{**more, "top_n": None})

    assert len(every) == len(DOCUMENTS)
    assert 0 < len(scored_documents) < len(DOCUMENTS)
    assert {one["index"]: one["relevance_score"] for one in scored_documents} == {
        one["index"]: one["relevance_score"] for one in alone["results"]
    }
    assert len(scored_documents) + answer["meta"]["below_threshold"] == len(DOCUMENTS)
    assert gained == answer["meta"]["below_threshold"]
    assert answer["meta"].get("preset") == alone["meta"].get("preset")


def test_an_answer_without_any_verdict_is_one_line(judging: TestClient) -> None:
    scored_documents, answer = streamed(judging, score_threshold=1.0)

    assert scored_documents == []
    assert answer["results"] == []
    assert answer["meta"]["below_threshold"] == len(DOCUMENTS)


@pytest.mark.parametrize("cache", [False, True])
def test_a_document_in_chunks_is_told_once_with_its_best_chunk(
    judging: TestClient, cache: bool
) -> None:
    more: Json = {
        "preset": "lions",
        "score_threshold": 0,
        "truncation": "chunk",
        "max_tokens_per_doc": 40,
        "overlap_tokens": 5,
        "return_details": True,
        "cache": cache,
    }
    scored_documents, answer = streamed(judging, **more)

    assert sorted(one["index"] for one in scored_documents) == [0, 1, 2, 3, 4]
    told = {one["index"]: one for one in scored_documents}
    for result in answer["results"]:
        line = told[result["index"]]
        assert {name: line.get(name) for name in result if name != "document"} == {
            name: value for name, value in result.items() if name != "document"
        }
    chunk = told[2]["chunk"]
    assert chunk["of"] > 3
    assert "Beijing" in DOCUMENTS[2][chunk["start"] : chunk["end"]]
    assert 0 < told[2]["normalized_score"] < 1


def test_who_asks_for_no_details_gets_none(judging: TestClient) -> None:
    [scored_document, *_], _ = streamed(judging)

    assert scored_document.keys() == {"index", "relevance_score", "tokens", "truncated", "cached"}


def test_what_is_streamed_is_counted_once(judging: TestClient) -> None:
    before = {name: counter(judging, name) for name in COUNTERS}
    _, answer = streamed(judging, score_threshold=0.5, cache=False)
    gained = {name: counter(judging, name) - before[name] for name in COUNTERS}

    assert gained == {
        "documents": len(DOCUMENTS),
        "cached_documents": 0,
        "prompt_tokens": answer["usage"]["prompt_tokens"],
        "cached_tokens": 0,
        "search_units": answer["meta"]["billed_units"]["search_units"],
    }


def test_warnings_that_are_known_stand_in_the_header_of_a_stream(judging: TestClient) -> None:
    body = BODY | {"instruction": "lions", "nonsense": 1}
    reply = judging.post("/v1/rerank", json=body, headers=LINES)

    assert "nonsense" in reply.headers["x-rankd-warnings"]
    assert "was read as a text" in reply.headers["x-rankd-warnings"]
    assert reply.headers["rankd"] == judging.post("/v1/rerank", json=BODY).headers["rankd"]


@pytest.mark.parametrize(
    "more", [{"preset": "lion"}, {"score_threshold": 2}, {"documents": []}], ids=str
)
def test_what_cannot_be_judged_is_an_ordinary_refusal(judging: TestClient, more: Json) -> None:
    reply = judging.post("/v1/rerank", json=BODY | more, headers=LINES)

    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/json"
