"""Streamed answers with thresholds, aliases, presets of keys, and documents in chunks."""

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
# Two equal ones, and a long one.
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
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with thresholds, aliases and presets of keys."""
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


def streamed(
    client: TestClient, key: str = "key-of-other", **options: Any
) -> tuple[list[Json], Json]:
    reply = client.post("/v1/rerank", json=BODY | options, headers=LINES | {"api-key": key})
    assert reply.status_code == 200, reply.text
    *results, answer = [json.loads(line) for line in reply.text.splitlines()]
    return results, answer


def unstreamed(client: TestClient, key: str = "key-of-other", **options: Any) -> Json:
    answer: Json = client.post("/v1/rerank", json=BODY | options, headers={"api-key": key}).json()
    return answer


def counter(client: TestClient, name: str) -> int:
    text = client.get("/metrics").text
    return int(float(re.findall(rf"^rankd_{name}_total (\S+)$", text, re.MULTILINE)[0]))


@pytest.mark.parametrize(
    ("key", "options"),
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
def test_a_document_below_the_threshold_has_no_line(
    configured: TestClient, key: str, options: Json
) -> None:
    every, _ = streamed(configured, key, **{**options, "score_threshold": -100, "raw_scores": True})
    before = counter(configured, "below_threshold_documents")
    results, answer = streamed(configured, key, **options)
    gained = counter(configured, "below_threshold_documents") - before
    alone = unstreamed(configured, key, **{**options, "top_n": None})

    assert len(every) == len(DOCUMENTS)
    assert 0 < len(results) < len(DOCUMENTS)
    assert {result["index"]: result["relevance_score"] for result in results} == {
        result["index"]: result["relevance_score"] for result in alone["results"]
    }
    assert len(results) + answer["meta"]["below_threshold"] == len(DOCUMENTS)
    assert gained == answer["meta"]["below_threshold"]
    assert answer["meta"].get("preset") == alone["meta"].get("preset")


def test_an_answer_without_results_is_one_line(configured: TestClient) -> None:
    results, answer = streamed(configured, score_threshold=1.0)

    assert results == []
    assert answer["results"] == []
    assert answer["meta"]["below_threshold"] == len(DOCUMENTS)


@pytest.mark.parametrize("cache", [False, True])
def test_a_document_in_chunks_has_one_line_with_its_best_chunk(
    configured: TestClient, cache: bool
) -> None:
    options: Json = {
        "preset": "lions",
        "score_threshold": 0,
        "truncation": "chunk",
        "max_tokens_per_doc": 40,
        "overlap_tokens": 5,
        "return_details": True,
        "cache": cache,
    }
    results, answer = streamed(configured, **options)

    assert sorted(result["index"] for result in results) == [0, 1, 2, 3, 4]
    lines = {result["index"]: result for result in results}
    for result in answer["results"]:
        line = lines[result["index"]]
        assert {name: line.get(name) for name in result if name != "document"} == {
            name: value for name, value in result.items() if name != "document"
        }
    chunk = lines[2]["chunk"]
    assert chunk["of"] > 3
    assert "Beijing" in DOCUMENTS[2][chunk["start"] : chunk["end"]]
    assert 0 < lines[2]["normalized_score"] < 1


def test_lines_hold_details_only_on_request(configured: TestClient) -> None:
    [result, *_], _ = streamed(configured)

    assert result.keys() == {"index", "relevance_score", "tokens", "truncated", "cached"}


def test_a_stream_is_counted_once(configured: TestClient) -> None:
    before = {name: counter(configured, name) for name in COUNTERS}
    _, answer = streamed(configured, score_threshold=0.5, cache=False)
    gained = {name: counter(configured, name) - before[name] for name in COUNTERS}

    assert gained == {
        "documents": len(DOCUMENTS),
        "cached_documents": 0,
        "prompt_tokens": answer["usage"]["prompt_tokens"],
        "cached_tokens": 0,
        "search_units": answer["meta"]["billed_units"]["search_units"],
    }


def test_warnings_known_at_the_start_are_in_the_header(configured: TestClient) -> None:
    body = BODY | {"instruction": "lions", "nonsense": 1}
    reply = configured.post("/v1/rerank", json=body, headers=LINES)

    assert "nonsense" in reply.headers["x-rankd-warnings"]
    assert "was read as a text" in reply.headers["x-rankd-warnings"]
    assert reply.headers["rankd"] == configured.post("/v1/rerank", json=BODY).headers["rankd"]


@pytest.mark.parametrize(
    "options", [{"preset": "lion"}, {"score_threshold": 2}, {"documents": []}], ids=str
)
def test_an_invalid_option_gets_an_ordinary_error_response(
    configured: TestClient, options: Json
) -> None:
    reply = configured.post("/v1/rerank", json=BODY | options, headers=LINES)

    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/json"
