"""`POST /v1/score` with vLLM's four pairs of field names."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

FIELD_PAIRS = [
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
]


def scores(client: TestClient, **body: Any) -> list[float]:
    reply = client.post("/v1/score", json=body)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"}
    assert [score["index"] for score in answer["data"]] == list(range(len(answer["data"])))
    assert {score["object"] for score in answer["data"]} == {"score"}
    return [score["score"] for score in answer["data"]]


@pytest.mark.parametrize(("left", "right"), FIELD_PAIRS)
def test_every_pair_of_names_gives_the_same_scores(
    client: TestClient, left: str, right: str
) -> None:
    first = scores(client, text_1="red fox", text_2=["a red fox", "a blue whale"])

    assert scores(client, **{left: "red fox", right: ["a red fox", "a blue whale"]}) == first
    assert first[0] > first[1]


def test_one_against_one_one_against_many_and_many_against_many(client: TestClient) -> None:
    one = scores(client, text_1="red fox", text_2="a red fox")
    many = scores(client, text_1="red fox", text_2=["a red fox", "a whale"])
    pairs = scores(
        client, text_1=["red fox", "whale", "whale"], text_2=["a red fox", "a whale", "a red fox"]
    )

    assert len(one) == 1
    assert many[0] == one[0]
    assert pairs[0] == one[0]
    assert pairs[1] == scores(client, text_1="whale", text_2="a whale")[0]
    assert pairs[2] == scores(client, text_1="whale", text_2="a red fox")[0]


def test_use_activation_false_returns_logits(client: TestClient) -> None:
    [logit] = scores(client, text_1="fox", text_2="a whale", use_activation=False)

    assert logit < 0


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, None, "send queries and documents as one of these pairs: queries and documents, "),
        ({"text_1": "q"}, None, "send queries and documents as one of these pairs: "),
        ({"text_1": "q", "text_2": []}, "text_2", "text_2 must not be empty"),
        ({"text_1": "", "text_2": "d"}, "text_1", "text_1 must not be empty"),
        ({"text_1": ["a", "b"], "text_2": ["c"] * 3}, "text_1", "text_1 has 2 texts and text_2 3"),
        ({"text_1": "q", "text_2": ["a", 7]}, "text_2[1]", "text_2[1] must be a string or an obj"),
        ({"queries": "q", "items": {"text": 1}}, "items", "items must hold its text as a string"),
        ({"text_1": "q", "text_2": "d", "items": "e", "queries": "f"}, "text_2", "queries with"),
    ],
)
def test_an_invalid_request_gets_a_message_that_names_the_field(
    client: TestClient, body: dict[str, Any], param: str | None, message: str
) -> None:
    reply = client.post("/v1/score", json=body)

    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)
    assert reply.json()["error"]["param"] == param


def test_warnings_name_unknown_fields_and_cut_documents(client: TestClient) -> None:
    body = {"text_1": ["a", "b"], "text_2": ["x", "one two three"], "spam": 1}

    reply = client.post("/v1/score", json={**body, "max_tokens_per_doc": 2})

    warnings = reply.json()["meta"]["warnings"]
    assert warnings[0] == "unknown field 'spam' was ignored"
    assert warnings[1].startswith("document 1 was cut from ")


@pytest.mark.parametrize(("left", "right"), FIELD_PAIRS)
def test_errors_about_the_prompt_name_the_fields_that_were_sent(
    client: TestClient, left: str, right: str
) -> None:
    long = client.post("/v1/score", json={left: "why " * 9_000, right: "d"})
    many = client.post("/v1/score", json={left: "q", right: ["d"] * 21})
    batch = client.post(
        "/simple/batch_rerank", json={"queries": ["why " * 9_000], "documents": ["d"]}
    )

    assert long.json()["error"]["param"] == left
    assert many.json()["error"]["param"] == right
    assert batch.json()["error"]["param"] == "queries"
