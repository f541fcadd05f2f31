"""Metrics of requests, documents and batches; labels are closed sets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import getpagesize
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from rankd import __version__, dialects
from rankd.config.settings import Settings
from rankd.server.app import open_app
from support.servers import family, get, serving

BODY = {"query": "q", "documents": ["a", "b", "a"]}
NAMES = {one.name for dialect in dialects.DIALECTS for one in dialect.variants()}


class Increases:
    """The increase of every series since the last call."""

    def __init__(self, client: TestClient, **headers: str) -> None:
        self._client, self._headers = client, headers
        self._before = self._shown()

    def _shown(self) -> dict[str, float]:
        lines = self._client.get("/metrics", headers=self._headers).text.splitlines()
        rows = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def now(self) -> dict[str, float]:
        shown = self._shown()
        increases = {name: value - self._before.get(name, 0) for name, value in shown.items()}
        self._before = shown
        return {name: value for name, value in increases.items() if value}


@pytest.fixture
def increases(client: TestClient) -> Increases:
    return Increases(client)


def reranks(increases: dict[str, float]) -> list[str]:
    """Labels of the ranking requests that were counted."""
    return [name[27:] for name in increases if name.startswith("rankd_rerank_requests_total")]


@pytest.mark.parametrize(
    ("path", "body", "labels"),
    [
        ("/v1/rerank", BODY, ("openai", "/v1/rerank", 200)),
        ("/v1/rerank/", BODY, ("openai", "/v1/rerank", 200)),
        ("/rerank", {"query": "q", "texts": ["a"]}, ("tei", "/rerank", 200)),
        ("/voyage/v1/rerank", BODY, ("voyage", "/v1/rerank", 200)),
        ("/v1/score", {"text_1": "q", "text_2": "a"}, ("vllm", "/v1/score", 200)),
        ("/v1/batch_rerank", {"requests": [BODY]}, ("openai", "/v1/batch_rerank", 200)),
        (
            "/v1/retrieval/nvidia/some-model/reranking",
            {"query": {"text": "q"}, "passages": [{"text": "a"}]},
            ("nim", "/v1/retrieval/{model:path}/reranking", 200),
        ),
        ("/v1/rerank", "no object", ("unknown", "/v1/rerank", 400)),
        ("/voyage/v1/rerank", "no object", ("voyage", "/v1/rerank", 400)),
        ("/v1/rerank", {"query": "q"}, ("openai", "/v1/rerank", 400)),
        ("/v1/rerank", BODY | {"pad": "x" * 100_000}, ("unknown", "/v1/rerank", 413)),
        ("/jina/v1/ranking", {}, ("jina", "/v1/ranking", 404)),
    ],
)
def test_a_ranking_request_is_counted_by_dialect_route_and_status(
    client: TestClient, increases: Increases, path: str, body: Any, labels: tuple[str, str, int]
) -> None:
    status = client.post(path, json=body).status_code

    found = increases.now()
    dialect, route, expected = labels
    assert status == expected
    assert reranks(found) == [f'{{dialect="{dialect}",route="{route}",status="{status}"}}']
    assert found[f'rankd_rerank_duration_seconds_count{{status="{status}"}}'] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/rerank"),
        ("POST", "/v1/no-such-thing"),
        ("POST", "/files/v1/rerank"),
        ("POST", "/tokenize"),
        ("GET", "/readyz"),
    ],
)
def test_other_requests_are_not_counted_as_rankings(
    client: TestClient, increases: Increases, method: str, path: str
) -> None:
    client.request(method, path, json=BODY if method == "POST" else None)

    found = increases.now()
    assert reranks(found) == []
    assert not any(name.startswith("rankd_rerank_duration") for name in found)


def test_labels_are_closed_sets_whatever_clients_send(client: TestClient) -> None:
    for number in range(20):
        client.post(f"/v1/retrieval/stranger-{number}/reranking", json={"stranger": number})
        client.post(f"/stranger-{number}", json=BODY)
        client.post("/v1/rerank", json=BODY | {"model": f"stranger-{number}"})
        client.post("/v1/rerank", json=BODY | {"instruction": f"stranger-{number}"})
        client.post(f"/v1/rerank?stranger-{number}", json=BODY, headers={"stranger": "stranger"})
        client.request(f"STRANGER{number}", "/v1/rerank", content=b"stranger")
    text = client.get("/metrics").text

    assert "stranger" not in text.lower()
    paths = {route.path for route in dialects.post_routes()}
    for label, values in (("dialect", NAMES | {"unknown"}), ("route", paths)):
        found = re.findall(rf'^rankd_rerank_requests_total{{.*{label}="([^"]*)"', text, re.M)
        assert found
        assert set(found) <= values


def test_a_401_is_counted_with_its_route() -> None:
    settings = Settings.model_validate({"engine": "fake", "api_keys": ["the-key"]})
    with app(settings) as client:
        increases = Increases(client, authorization="Bearer the-key")
        client.post("/v1/rerank", json=BODY)
        client.post("/cohere/v2/rerank", json=BODY)

        assert sorted(reranks(increases.now())) == [
            '{dialect="cohere",route="/v2/rerank",status="401"}',
            '{dialect="unknown",route="/v1/rerank",status="401"}',
        ]


def test_documents_tokens_and_equal_pairs_are_counted(
    client: TestClient, increases: Increases
) -> None:
    usage = client.post("/v1/rerank", json=BODY).json()["usage"]

    found = increases.now()
    assert found["rankd_request_documents_sum"] == 3
    assert found["rankd_request_documents_count"] == 1
    assert found["rankd_request_tokens_sum"] == usage["prompt_tokens"]
    assert found["rankd_deduplicated_total"] == 1
    assert found["rankd_computed_pairs_total"] == 2


def test_documents_in_chunks_are_counted_once_each(
    client: TestClient, increases: Increases
) -> None:
    body = {"query": "q", "documents": ["short", "word " * 300], "truncation": "chunk"}
    reply = client.post("/v1/rerank", json=body | {"max_tokens_per_doc": 100})

    found = increases.now()
    assert reply.status_code == 200
    assert found["rankd_chunked_documents_total"] == 1
    assert found["rankd_computed_pairs_total"] >= 3
    assert "rankd_truncated_documents_total" not in found


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/rerank", BODY | {"documents": ["a"] * 21}, "request_documents"),
        ("/v1/rerank", BODY | {"query": "q" * 100_000}, "request_bytes"),
        ("/v1/batch_rerank", {"requests": [BODY] * 7}, "request_documents"),
    ],
)
def test_a_refused_request_is_counted_by_reason(
    client: TestClient, increases: Increases, path: str, body: dict[str, Any], reason: str
) -> None:
    assert client.post(path, json=body).status_code == 413

    assert increases.now()[f'rankd_refused_total{{reason="{reason}"}}'] == 1


def test_every_reason_starts_at_0(client: TestClient) -> None:
    text = client.get("/metrics").text

    reasons = {"request_bytes", "connections", "waiting_bytes", "waiting_tokens", "key_tokens"}
    assert reasons <= set(re.findall(r'^rankd_refused_total{reason="(\w+)"}', text, re.M))


def test_the_limits_on_waiting_requests_are_metrics() -> None:
    with app(
        Settings.model_validate(
            {"engine": "fake", "max_waiting_tokens": 5000, "max_waiting_requests": 7}
        )
    ) as client:
        lines = client.get("/metrics").text.splitlines()

    assert "rankd_max_waiting_tokens 5000.0" in lines
    assert "rankd_max_waiting_requests 7.0" in lines


def test_there_is_a_version_and_no_created_series(
    client: TestClient,
) -> None:
    text = client.get("/metrics").text

    assert re.search(rf'^rankd_build_info{{.*version="{re.escape(__version__)}"}} 1.0$', text, re.M)
    assert "_created" not in text


def test_the_native_engine_has_metrics_of_batches_and_process() -> None:
    with serving("--self-check", "off", "--cache-mb", "0") as server:
        [_, worker, *_] = family(server.process.pid)
        before = families(get(f"{server.url}/metrics").text)
        answers = [httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=60) for _ in range(3)]
        after = families(get(f"{server.url}/metrics").text)
        pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])

    assert all(answer.status_code == 200 for answer in answers)
    assert before.get("rankd_engine_batch_pairs_sum", 0) == 0
    assert after["rankd_engine_batch_pairs_sum"] == 6  # Two of the three documents are equal.
    assert after["rankd_engine_batch_pairs_count"] == 3
    tokens = answers[0].json()["usage"]["prompt_tokens"]
    # `usage` counts the prefix three times; it is computed once.
    assert 0 < after["rankd_engine_batch_tokens_sum"] < 3 * tokens
    assert 0 < after["rankd_engine_batch_duration_seconds_sum"] < 60
    assert after["rankd_engine_process_resident_memory_bytes"] == pytest.approx(
        pages * getpagesize(), rel=0.2
    )
    assert after["rankd_engine_process_cpu_seconds_total"] > 0


def families(text: str) -> dict[str, float]:
    """The samples without labels, by name."""
    found = (sample for one in text_string_to_metric_families(text) for sample in one.samples)
    return {sample.name: sample.value for sample in found if not sample.labels}


@contextmanager
def app(settings: Settings) -> Iterator[TestClient]:
    """The app with these settings, in an event loop of its own."""
    with asyncio.Runner() as runner:
        context = open_app(settings)
        yield TestClient(runner.run(context.__aenter__()))
        runner.run(context.__aexit__(None, None, None))
