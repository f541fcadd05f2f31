"""Paths that are not served: what they mean is served, and the others get a hint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd import dialects
from rankd.config.settings import Settings
from rankd.dialects.wrong_paths import corrected
from support.calling import calling
from support.yardstick import scaled

BODY = {"query": "q", "documents": ["a", "b"]}
TEI = {"query": "q", "texts": ["a", "b"]}


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    with calling(Settings(engine="fake", api_keys=("k",))) as client:
        yield client


def without_ids(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v1/rerank/rerank", "/rerank"),
        ("/rerank/v1/rerank", "/v1/rerank"),
        ("/v1/rerank/v1/rerank", "/v1/rerank"),
        ("/api/v1/rerank", "/v1/rerank"),
        ("/rpc/rerank", "/rerank"),
        ("/v1-openai/rerank", "/rerank"),
        ("/model/proxy/27/v1/rerank", "/v1/rerank"),
        ("/my-model/v1/rerank", "/v1/rerank"),
        ("/Qwen/Qwen3-Reranker-0.6B/v1/rerank/", "/v1/rerank"),
        ("/models/m/v1/reranking", "/v1/reranking"),
        ("/V1/Rerank", "/v1/rerank"),
        ("/v1", "/v1/rerank"),
        ("/v2/", "/v1/rerank"),
    ],
)
def test_a_path_that_ends_in_a_rerank_path_means_that(
    client: TestClient, path: str, served: str
) -> None:
    reply = client.post(path, json=BODY)
    direct = client.post(served, json=BODY)

    assert reply.status_code == 200
    assert without_ids(reply.json())["results"] == without_ids(direct.json())["results"]
    assert reply.headers["x-rankd-warnings"] == (
        f"POST {path} was read as POST {served}: correct the client's base URL"
    )
    assert "x-rankd-warnings" not in direct.headers


@pytest.mark.parametrize(
    ("path", "body", "direct"),
    [
        ("/api/v1/score", {"queries": "q", "documents": ["a"]}, "/v1/score"),
        ("/gateway/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "a"}]}, "/ranking"),
        ("/my-model/rerank", TEI, "/tei/rerank"),
        ("/proxy/cohere/v2/rerank", BODY, "/cohere/v2/rerank"),
        ("/cohere/v1/rerank/v2/rerank", BODY, "/cohere/v2/rerank"),
        ("/Simple/Rerank", BODY, "/simple/rerank"),
        ("/cohere/cohere/v1/rerank", BODY, "/cohere/v1/rerank"),
        ("/cohere", BODY, "/cohere/v1/rerank"),
        ("/voyage/v1", BODY, "/voyage/v1/rerank"),
        ("/x/v1/batch_rerank", {"requests": [BODY]}, "/v1/batch_rerank"),
    ],
)
def test_the_dialect_is_that_of_the_body_the_path_or_the_prefix(
    client: TestClient, path: str, body: dict[str, Any], direct: str
) -> None:
    reply, expected = client.post(path, json=body), client.post(direct, json=body)

    assert reply.status_code == expected.status_code == 200
    assert shape(reply.json()) == shape(expected.json())
    assert "correct the client's base URL" in reply.headers["x-rankd-warnings"]


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items() if name != "id"}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("body", "field"),
    [(BODY, "results"), ({**BODY, "top_k": 1}, "data"), ({"query": "q", "input": ["a"]}, "data")],
)
def test_a_body_with_documents_is_answered_at_the_base_url(
    client: TestClient, body: dict[str, Any], field: str
) -> None:
    assert field in client.post("/", json=body).json()


def test_a_body_without_documents_is_teis_at_the_base_url(client: TestClient) -> None:
    assert [result["index"] for result in client.post("/", json=TEI).json()]
    refused = client.post("/", json={"query": "q"})
    assert refused.status_code == 400
    assert refused.json()["error_type"] == "Validation"


def test_the_warning_stands_beside_the_others_and_in_errors(client: TestClient) -> None:
    unknown = client.post("/rpc/rerank", json={**BODY, "colour": 1})
    refused = client.post("/rpc/rerank", json={"query": "q"})

    assert unknown.headers["x-rankd-warnings"] == (
        "POST /rpc/rerank was read as POST /rerank: correct the client's base URL; "
        "unknown field 'colour' was ignored"
    )
    assert refused.status_code == 400
    assert "/rpc/rerank was read as" in refused.headers["x-rankd-warnings"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/rerankings", "did you mean POST /v1/rerank?"),
        ("/v1/rerank/qwen3", "did you mean POST /v1/rerank?"),
        # Two dialects: which format would the client read?
        ("/cohere/jina/v1/rerank", "did you mean POST /cohere/v1/rerank?"),
        ("/elastic/v1/rerank", "did you mean POST /elastic/_inference/rerank/{model}?"),
        ("/tei/v1/nothing", "did you mean POST /tei/v1/rerank?"),
        ("/v1/files/x/rerank", "did you mean POST /v1/rerank?"),
        ("/a b/v1/rerank", "did you mean POST /v1/rerank?"),
        ("/a%2fb/v1/rerank", "did you mean POST /v1/rerank?"),
        ("/%E4%BD%A0/v1/rerank", "did you mean POST /v1/rerank?"),
        ("/v1/reran\N{KELVIN SIGN}", "did you mean POST /v1/rerank?"),
        ("/v1/nothing", "; see /docs"),
    ],
)
def test_any_other_path_is_a_404_with_a_hint(client: TestClient, path: str, hint: str) -> None:
    reply = client.post(path, json=BODY)

    assert reply.status_code == 404
    assert hint in reply.json()["message"]
    assert "x-rankd-warnings" not in reply.headers


@pytest.mark.parametrize(
    ("path", "field"),
    [("/tei/v1/nothing", "error_type"), ("/x/tei/nothing", "error_type"), ("/cohere/x", "id")],
)
def test_a_404_has_the_format_of_the_dialect_that_the_path_names(
    client: TestClient, path: str, field: str
) -> None:
    reply = client.post(path, json=BODY)

    assert reply.status_code == 404
    assert field in reply.json()


@pytest.mark.parametrize(
    ("path", "task", "target"),
    [
        ("/v1/embeddings", "embeddings", "/v1/rerank"),
        ("/embeddings", "embeddings", "/v1/rerank"),
        ("/llamacpp/v1/embeddings", "embeddings", "/llamacpp/v1/rerank"),
        ("/infinity/embeddings", "embeddings", "/infinity/v1/rerank"),
        ("/tei/embed", "embeddings", "/tei/v1/rerank"),
        ("/pooling", "pooling", "/v1/rerank"),
        ("/v1/chat/completions", "text generation", "/v1/rerank"),
        ("/my-model/v1/chat/completions", "text generation", "/v1/rerank"),
        ("/api/chat", "text generation", "/v1/rerank"),
    ],
)
def test_paths_for_other_models_say_that_this_is_a_reranker(
    client: TestClient, path: str, task: str, target: str
) -> None:
    """llama.cpp and Infinity answer 400 for a task that their model does not do."""
    reply = client.post(path, json={"model": "m", "input": "x"})

    field = "texts" if path.startswith("/tei") else "documents"
    assert reply.status_code == 400
    assert reply.json()["message"] == (
        f'this server is a reranker and has no {task}: POST {{"query": …, "{field}": […]}} '
        f"to {target}"
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", '{"query": …, "documents": […]}'),
        ("/rerank", '{"query": …, "documents": […]}'),
        ("/tei/rerank", '{"query": …, "texts": […]}'),
        ("/v1/ranking", '{"query": {…}, "passages": […]}'),
        ("/v1/batch_rerank", '{"requests": […]}'),
        (
            "/v1/retrieval/nvidia/m/reranking",
            '{"query": {…}, "passages": […]}',
        ),
    ],
)
def test_a_get_of_a_post_path_shows_the_body(client: TestClient, path: str, body: str) -> None:
    reply = client.get(path)

    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["message"] == f"GET is not supported at {path}: POST a JSON body: {body}"


def test_every_post_path_shows_its_body(client: TestClient) -> None:
    shown = 0
    for spec in dialects.route_specs():
        path = spec.path.replace("{model:path}", "m")
        # Elsewhere a GET has another meaning, as at `/v1/models/rerank`: a model of that name.
        if client.get(path).status_code != 405:
            continue
        assert "POST a JSON body: {" in client.get(path).json()["message"], path
        shown += 1
    assert shown > 100


def test_a_405_allows_the_methods_of_every_route_at_the_path(client: TestClient) -> None:
    reply = client.put("/")

    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD, POST"


def test_a_corrected_path_needs_a_key_and_counts_as_the_path_it_means(guarded: TestClient) -> None:
    refused = guarded.post("/my-model/v1/rerank", json=BODY)
    served = guarded.post("/my-model/v1/rerank", json=BODY, headers={"api-key": "k"})
    metrics = guarded.get("/metrics", headers={"api-key": "k"}).text

    assert (refused.status_code, served.status_code) == (401, 200)
    assert refused.json().keys() == guarded.post("/v1/rerank", json=BODY).json().keys()
    assert 'rankd_requests_total{route="/v1/rerank",status="200"}' in metrics
    assert "my-model" not in metrics


def test_only_paths_that_compute_scores_are_reached_by_correction() -> None:
    """Nothing that a proxy in front guards by its path: files, jobs, metrics, the page."""
    for path in ("/v1/files", "/v1/batches", "/metrics", "/ui/gradio_api/run/rank", "/tokenize"):
        assert corrected(f"/x{path}", None) is None
    for path in ("/ui/gradio_api/run/rerank", "/x/../v1/rerank", "/./v1/rerank"):
        assert corrected(path, None) is None
    assert corrected("/x/v1/rerank", None) == (None, "/v1/rerank")


def test_paths_that_are_served_are_not_corrected() -> None:
    for spec in dialects.route_specs():
        path = spec.route.replace("{model:path}", "some/model/v1/rerank")
        assert path in dialects.exact_post_paths() or corrected(path, spec.prefix) is None


@pytest.mark.parametrize(
    "path", ["/" + "a/" * 30_000 + "rerank", "/" + "v1/rerank/" * 6_000, "/" + "%2fx" * 15_000]
)
def test_a_very_long_path_is_a_404_in_linear_time(client: TestClient, path: str) -> None:
    began = time.process_time()
    reply = client.post(path, json=BODY)

    assert time.process_time() - began < scaled(1)
    assert reply.status_code == 404
    assert len(reply.json()["message"]) < 400
