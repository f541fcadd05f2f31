"""Vendors' API references: each documented request gets an answer with every documented field.

A request is the reference's example with another host and other texts. It is sent to the vendor's
path without a prefix, and to the same path under the vendor's prefix. Without the prefix, one path
may serve several vendors; `Reference.unprefixed` has the shape where it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from references import OBJECTS, QUERY, REFERENCES, TEXTS, Maybe, Reference

BEARER = {"Authorization": "Bearer not-a-real-key"}


@pytest.mark.parametrize(
    "reference",
    [reference for reference in REFERENCES if reference.unprefixed is not None],
    ids=lambda reference: reference.name,
)
def test_a_reference_is_answered_at_its_own_path(client: TestClient, reference: Reference) -> None:
    answer = post(client, reference, reference.path)

    assert_shape(
        answer, reference.shape if reference.unprefixed == "same" else reference.unprefixed
    )
    assert_scores(client, answer, reference)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_a_reference_is_answered_under_its_prefix(client: TestClient, reference: Reference) -> None:
    answer = post(client, reference, reference.prefix + reference.path)

    assert_shape(answer, reference.shape)
    assert_scores(client, answer, reference)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_the_answer_repeats_the_requests_model_name(
    client: TestClient, reference: Reference
) -> None:
    answer = post(client, reference, reference.prefix + reference.path)

    if isinstance(answer, dict) and "model" in answer and "model" in reference.body:
        assert answer["model"] == reference.body["model"]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/cohere/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/jina/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/voyage/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/mixedbread/v1/reranking", {"input": TEXTS, "return_input": True}, "input"),
        ("/siliconflow/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/pinecone/rerank", {"documents": OBJECTS, "return_documents": False}, "document"),
        ("/tei/rerank", {"texts": TEXTS, "return_text": False}, "text"),
    ],
)
def test_results_have_documents_only_if_requested(
    client: TestClient, path: str, body: dict[str, Any], key: str
) -> None:
    reply = client.post(path, json={"model": "m", "query": QUERY, **body})

    requested = any(value is True for value in body.values())
    assert reply.status_code == 200, reply.text
    items = items_of(reply.json())
    assert len(items) == len(TEXTS)
    assert all((key in item) == requested for item in items)


def test_object_documents_are_returned_with_all_fields(client: TestClient) -> None:
    """Cohere, Pinecone and Mixedbread document that other fields are preserved."""
    shared = {"model": "m", "query": QUERY, "rank_fields": ["text"]}
    cohere = {**shared, "documents": OBJECTS, "return_documents": True}
    cases = [
        ("/cohere/v1/rerank", cohere, "document"),
        ("/pinecone/rerank", cohere, "document"),
        ("/mixedbread/v1/reranking", {**shared, "input": OBJECTS, "return_input": True}, "input"),
    ]

    for path, body, key in cases:
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        items = items_of(reply.json())
        assert len(items) == len(OBJECTS)
        for item in items:
            assert item[key] == OBJECTS[item["index"]], path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/siliconflow/v1/rerank", {"model": "m", "query": QUERY, "documents": TEXTS[1]}),
        ("/vllm/rerank", {"model": "m", "query": QUERY, "documents": TEXTS[1]}),
        ("/elastic/_inference/rerank/my-endpoint", {"query": QUERY, "input": TEXTS[1]}),
    ],
)
def test_a_single_string_is_one_document(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = client.post(path, json=body)

    assert reply.status_code == 200, reply.text
    assert [item["index"] for item in items_of(reply.json())] == [0]


def test_llamacpp_answers_teis_body_with_an_array(client: TestClient) -> None:
    reply = client.post("/llamacpp/rerank", json={"query": QUERY, "texts": TEXTS, "top_n": 2})

    assert reply.status_code == 200, reply.text
    assert_shape(reply.json(), [{"index": int, "score": float}])
    assert len(reply.json()) == 2


@pytest.mark.parametrize(
    ("number", "path", "body"),
    [
        (2, "/v1/rerank", {"documents": TEXTS, "top_n": 2}),
        (2, "/voyage/v1/rerank", {"documents": TEXTS, "top_k": 2}),
        (2, "/mixedbread/v1/reranking", {"input": TEXTS, "top_k": 2}),
        (2, "/pinecone/rerank", {"documents": OBJECTS, "top_n": 2}),
        (2, "/sglang/v1/rerank", {"documents": TEXTS, "top_n": 2}),
        (2, "/elastic/_inference/rerank/e", {"input": TEXTS, "top_n": 2}),
        (2, "/elastic/_inference/rerank/e", {"input": TEXTS, "task_settings": {"top_n": 2}}),
        (3, "/cohere/v2/rerank", {"documents": TEXTS, "top_n": 30}),
        (3, "/jina/v1/rerank", {"documents": TEXTS, "top_n": None}),
        (3, "/voyage/v1/rerank", {"documents": TEXTS, "top_k": 30}),
    ],
)
def test_the_limit_caps_the_number_of_results(
    client: TestClient, number: int, path: str, body: dict[str, Any]
) -> None:
    reply = client.post(path, json={"model": "m", "query": QUERY, **body})

    assert reply.status_code == 200, reply.text
    assert len(items_of(reply.json())) == number


def test_weaviates_container_scores_a_property_without_documents(client: TestClient) -> None:
    body = {"query": QUERY, "property": TEXTS[1]}

    answer = client.post("/weaviate/rerank", json=body).json()

    assert_shape(answer, {"query": QUERY, "property": TEXTS[1], "score": float})
    assert answer["score"] == pytest.approx(expected_scores(client)[1])


@pytest.mark.parametrize("prefix", ["", "/weaviate"])
def test_weaviates_probes_answer_204_without_content(client: TestClient, prefix: str) -> None:
    for name in ("live", "ready"):
        reply = client.get(f"{prefix}/.well-known/{name}")
        assert reply.status_code == 204
        assert reply.content == b""
    assert isinstance(client.get(f"{prefix}/meta").json(), dict)


@pytest.mark.parametrize("path", ["/tei/health", "/tei/ping", "/ping"])
def test_teis_probes_answer(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_teis_headers_have_counts_and_times(client: TestClient) -> None:
    headers = client.post("/tei/rerank", json={"query": QUERY, "texts": TEXTS}).headers

    assert int(headers["x-compute-tokens"]) > 0
    assert int(headers["x-compute-characters"]) > 0
    assert "x-compute-type" in headers
    assert int(headers["x-total-time"]) >= 0


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/nim/v1/models", "/vllm/v1/models"])
def test_models_are_listed_as_nim_and_vllm_list_them(client: TestClient, path: str) -> None:
    assert_shape(client.get(path).json(), {"object": "list", "data": [{"id": str}]})


def post(client: TestClient, reference: Reference, path: str) -> Any:
    reply = client.post(path, json=reference.body, headers={**BEARER, **reference.headers})
    assert reply.status_code == 200, reply.text
    return reply.json()


def assert_shape(value: Any, shape: Any, where: str = "answer") -> None:
    """Asserts that a JSON value has every field that the shape lists, with the right type."""
    match shape:
        case Maybe():
            if value is not None:
                assert_shape(value, shape.shape, where)
        case dict():
            assert isinstance(value, dict), f"{where} is {value!r}, not an object"
            for name, inner in shape.items():
                if name in value or not isinstance(inner, Maybe):
                    assert name in value, f"{where} has no {name}: {sorted(value)}"
                    assert_shape(value[name], inner, f"{where}.{name}")
        case [inner]:
            assert isinstance(value, list), f"{where} is {value!r}, not an array"
            assert value, f"{where} is empty"
            for index, item in enumerate(value):
                assert_shape(item, inner, f"{where}[{index}]")
        case type():
            assert type(value) is shape, f"{where} is {value!r}, not {shape.__name__}"
        case _:
            assert value == shape, f"{where} is {value!r}, not {shape!r}"


def assert_scores(client: TestClient, answer: Any, reference: Reference) -> None:
    """Asserts that each text has the score that `/v1/rerank` gives it, in the right order."""
    expected = expected_scores(
        client, logits=reference.logits, instruction=instruction(reference.body)
    )
    items = items_of(answer)
    scores = {item.get("index", position): score_of(item) for position, item in enumerate(items)}

    assert scores == pytest.approx(expected)
    if reference.request_order:
        assert list(scores) == [0, 1, 2]
    else:
        assert list(scores.values()) == sorted(scores.values(), reverse=True)


def items_of(answer: Any) -> list[dict[str, Any]]:
    """The results in an answer, in whichever field the vendor has them."""
    if isinstance(answer, dict):
        answer = answer.get("output", answer)
        names = ("results", "data", "rankings", "rerank", "scores")
        answer = next(answer[name] for name in names if name in answer)
    return cast(list[dict[str, Any]], answer)


def score_of(item: Mapping[str, Any]) -> float:
    names = ("relevance_score", "score", "logit")
    return float(next(item[name] for name in names if name in item))


def instruction(body: Mapping[str, Any]) -> str | None:
    options = {**body, **body.get("parameters", {})}
    return options.get("instruction") or options.get("instruct")


def expected_scores(
    client: TestClient, *, logits: bool = False, instruction: str | None = None
) -> dict[int, float]:
    """The scores of the three texts from `/v1/rerank`, by index."""
    body = {"query": QUERY, "documents": TEXTS, "raw_scores": logits, "instruction": instruction}
    results = client.post("/v1/rerank", json=body).json()["results"]
    return {result["index"]: result["relevance_score"] for result in results}
