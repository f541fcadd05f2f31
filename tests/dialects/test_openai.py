"""`POST /v1/rerank` in rankd's own API: fields of the answer, options, error messages."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

QUERY = "What is the capital of China?"
DOCUMENTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]


def rerank(client: TestClient, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_the_answer_has_every_field_that_clients_read(client: TestClient) -> None:
    answer = rerank(client)

    assert set(answer) == {"id", "object", "created", "model", "results", "meta", "usage", "tokens"}
    assert answer["object"] == "rerank"
    assert answer["model"] == "builtin"
    assert set(answer["results"][0]) == {"index", "relevance_score", "document"}
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
    assert isinstance(answer["usage"]["prompt_tokens"], int)


def test_results_come_best_first_with_their_own_texts(client: TestClient) -> None:
    results = rerank(client)["results"]

    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert [result["document"]["text"] for result in results] == [
        DOCUMENTS[result["index"]] for result in results
    ]
    assert results[0]["index"] == 1


def test_equal_scores_keep_the_order_of_the_request(client: TestClient) -> None:
    results = rerank(client, documents=["same", "same", "same"])["results"]

    assert [result["index"] for result in results] == [0, 1, 2]


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (0, 3), (99, 3), (None, 3)])
def test_top_n_is_the_number_of_results(client: TestClient, top_n: int | None, count: int) -> None:
    assert len(rerank(client, top_n=top_n)["results"]) == count


@pytest.mark.parametrize("flag", [False, "false"])
def test_documents_are_absent_if_not_requested(client: TestClient, flag: Any) -> None:
    results = rerank(client, return_documents=flag)["results"]

    assert len(results) == len(DOCUMENTS)
    for result in results:
        assert set(result) == {"index", "relevance_score"}


@pytest.mark.parametrize("flag", [True, "true", None])
def test_documents_are_objects_if_requested(client: TestClient, flag: Any) -> None:
    results = rerank(client, return_documents=flag)["results"]

    assert results[0]["document"] == {"text": DOCUMENTS[1]}


@pytest.mark.parametrize("flag", [{"use_activation": False}, {"raw_scores": True}])
def test_raw_scores_are_the_logits_of_the_scores(client: TestClient, flag: dict[str, bool]) -> None:
    scores = [result["relevance_score"] for result in rerank(client)["results"]]
    logits = [result["relevance_score"] for result in rerank(client, **flag)["results"]]

    assert scores == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-6)


@pytest.mark.parametrize("name", ["instruction", "instruct", "task"])
def test_an_instruction_is_read_by_the_model(client: TestClient, name: str) -> None:
    plain = rerank(client)["usage"]["prompt_tokens"]
    longer = rerank(client, **{name: "Given a question, find one. " * 12})

    assert longer["usage"]["prompt_tokens"] > plain
    assert "warnings" not in longer["meta"]


def test_documents_may_be_objects_with_text(client: TestClient) -> None:
    plain = rerank(client)["results"]
    objects = rerank(
        client, documents=[{"text": text} for text in DOCUMENTS], query={"text": QUERY}
    )

    assert objects["results"] == plain


def test_a_warning_names_each_cut_document_with_its_token_counts(client: TestClient) -> None:
    answer = rerank(client, max_tokens_per_doc=2)

    assert len(answer["meta"]["warnings"]) == 3
    assert answer["meta"]["warnings"][0].startswith("document 0 was cut from ")
    assert answer["meta"]["warnings"][0].endswith(" to 2 tokens")


def test_warnings_name_unknown_fields(client: TestClient) -> None:
    assert rerank(client, flavour="x", colour=1)["meta"]["warnings"] == [
        "unknown field 'colour' was ignored",
        "unknown field 'flavour' was ignored",
    ]


def test_vllms_benchmark_body_is_accepted(client: TestClient) -> None:
    assert "warnings" not in rerank(client, truncate_prompt_tokens=-1)["meta"]


def test_scores_are_floats_of_at_most_18_characters(client: TestClient) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}

    text = client.post("/v1/rerank", json=body).text

    fragments = text.split('"relevance_score":')[1:]
    assert len(fragments) == len(DOCUMENTS)
    for fragment in fragments:
        literal = fragment.split(",")[0].split("}")[0]
        assert len(literal) <= 18
        assert "." in literal


def test_json_needs_no_content_type(client: TestClient) -> None:
    reply = client.post(
        "/v1/rerank", content=json.dumps({"query": QUERY, "documents": DOCUMENTS}).encode()
    )

    assert reply.status_code == 200


def test_lone_surrogates_are_replaced(client: TestClient) -> None:
    body = b'{"query": "cut emoji \\ud83d", "documents": ["\\ud83d half", "whole \\ud83d\\ude42"]}'

    reply = client.post("/v1/rerank", content=body)

    assert reply.status_code == 200
    texts = {result["document"]["text"] for result in reply.json()["results"]}
    assert texts == {"\ufffd half", "whole 🙂"}


@pytest.mark.parametrize("model", ["builtin", "", None, "default/not-specified", "rerank-v3.5"])
def test_any_model_name_is_accepted_and_returned(client: TestClient, model: str | None) -> None:
    assert rerank(client, model=model)["model"] == (model or "builtin")


INVALID = [
    ({"documents": ["d"]}, 400, "query", "query is missing"),
    ({"query": "q"}, 400, "documents", "documents is missing"),
    ({"query": "", "documents": ["d"]}, 400, "query", "query must not be empty"),
    ({"query": " \n", "documents": ["d"]}, 400, "query", "query must not be empty"),
    ({"query": "q", "documents": []}, 400, "documents", "documents must not be empty"),
    (
        {"query": 5, "documents": ["d"]},
        400,
        "query",
        "query must be a string or an object with `text`, not a number (5)",
    ),
    (
        {"query": "q", "documents": ["d", None]},
        400,
        "documents[1]",
        "documents[1] must be a string or an object with `text`, not null",
    ),
    (
        {"query": "q", "documents": 5},
        400,
        "documents",
        "documents must be an array, not a number (5)",
    ),
    (
        {"query": "q", "documents": ["d"], "top_n": "many"},
        400,
        "top_n",
        'top_n must be an integer, not a string ("many")',
    ),
    (
        {"query": "q", "documents": ["d"], "return_documents": "perhaps"},
        400,
        "return_documents",
        'return_documents must be true or false, not a string ("perhaps")',
    ),
    (
        {"query": "q", "documents": ["d"] * 21},
        413,
        "documents",
        "21 documents in one request; the limit is 20",
    ),
]


@pytest.mark.parametrize(("body", "status", "param", "message"), INVALID)
def test_an_invalid_request_gets_a_message_that_names_the_field(
    client: TestClient, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    reply = client.post("/v1/rerank", json=body)

    assert reply.status_code == status
    answer = reply.json()
    assert answer["message"] == answer["detail"] == answer["error"]["message"] == message
    assert answer["error"]["param"] == param
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_too_many_documents_are_refused_before_their_types_are_checked(client: TestClient) -> None:
    many = client.post(
        "/v1/rerank", content=b'{"query":"q","documents":[' + b"1," * 49_000 + b"1]}"
    )
    few = client.post("/v1/rerank", json={"query": "q", "documents": [1] * 20})

    assert many.status_code == 413
    assert many.json()["error"]["message"] == "49,001 documents in one request; the limit is 20"
    assert few.json()["error"]["param"] == "documents[0]"


def test_a_timeout_above_the_limit_is_a_400(client: TestClient) -> None:
    for digits in (12, 400):
        body = b'{"query":"q","documents":["d"],"timeout_ms":' + b"9" * digits + b"}"
        assert client.post("/v1/rerank", content=body).status_code == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b"query=x", "the body is not valid JSON: "),
        (b'{"query": "a"', "the body is not valid JSON: "),
        (b"[1]", "the body must be a JSON object, not an array"),
        (b'"text"', 'the body must be a JSON object, not a string ("text")'),
        (b"\xff\xfe{}", "the body is not valid JSON: "),
        (b'{"a":' * 50_00 + b"1", "the body is not valid JSON: "),
    ],
)
def test_a_body_that_is_not_a_json_object_gets_a_message(
    client: TestClient, body: bytes, message: str
) -> None:
    reply = client.post("/v1/rerank", content=body)

    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)


def test_a_body_over_the_limit_is_a_413_that_names_the_limit(client: TestClient) -> None:
    reply = client.post("/v1/rerank", json={"query": "q", "documents": ["d" * 100_000]})

    assert reply.status_code == 413
    assert "the limit is 100,000" in reply.json()["error"]["message"]


def test_a_query_too_long_for_the_model_is_a_400_that_names_the_limit(client: TestClient) -> None:
    reply = client.post("/v1/rerank", json={"query": "why " * 9_000, "documents": ["d"]})

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "query"
    assert "the limit is 8,192" in reply.json()["error"]["message"]


def test_a_passed_deadline_is_a_504(client: TestClient) -> None:
    documents = [f"{number} is too long for a moment " * 120 for number in range(20)]
    body = {"query": "q", "documents": documents, "timeout_ms": 1}

    reply = client.post("/v1/rerank", json=body)

    assert reply.status_code == 504
    assert reply.json()["error"]["message"] == "scored 0 of 20 documents in time"
