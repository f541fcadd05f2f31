"""On shared paths the body decides the dialect: the table of docs/api.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.dialects import DIALECTS, base, detect, openai, voyage
from rankd.dialects.base import BodyMatcher
from rankd.dialects.request import COHERE_PATH, RERANK_PATHS
from rankd.errors import SetupError

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")

QUERY = "What is the capital of China?"
TEXTS = ["Lions hunt at night.", "The capital of China is Beijing."]

# For each row of the table, bodies that match it.
BODIES: dict[str, list[dict[str, Any]]] = {
    "dashscope": [{"input": {"query": QUERY, "documents": TEXTS}}],
    "nim": [{"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]}],
    "bedrock": [
        {
            "queries": [{"type": "TEXT", "textQuery": {"text": QUERY}}],
            "sources": [
                {
                    "type": "INLINE",
                    "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}},
                }
                for text in TEXTS
            ],
        }
    ],
    "tei": [{"query": QUERY, "texts": TEXTS}],
    "mixedbread": [{"query": QUERY, "input": TEXTS}],
    "weaviate": [
        {"query": QUERY, "documents": TEXTS, "property": ""},
        {"query": QUERY, "property": TEXTS[1]},
    ],
    "voyage": [
        {"query": QUERY, "documents": TEXTS, "top_k": None},
        {"query": QUERY, "documents": TEXTS, "top_k": 1},
        {"query": QUERY, "documents": TEXTS, "truncation": True},
    ],
    "openrouter": [{"query": QUERY, "documents": TEXTS, "provider": {}}],
    "openai": [{"query": QUERY, "documents": TEXTS}],
}


def rows() -> list[list[str]]:
    """The cells of the table: what the body has, the dialect, the answer, the error."""
    table = API.split("| the body has |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_table_has_every_dialect_in_its_order() -> None:
    documented = [row[1].strip("`") for row in rows()]

    assert documented == [dialect.name for dialect in detect.ORDER]


@pytest.mark.parametrize("row", range(len(detect.ORDER)))
def test_a_row_names_the_matchers_of_its_dialect(row: int) -> None:
    documented = rows()[row][0].replace("`", "").removesuffix(", or nothing of all this")

    assert documented.split(", or ") == [str(matcher) for matcher in detect.ORDER[row].matchers]


@pytest.mark.parametrize("path", RERANK_PATHS)
@pytest.mark.parametrize("row", range(len(detect.ORDER)))
def test_a_row_names_the_fields_of_the_answer(client: TestClient, path: str, row: int) -> None:
    _, dialect, shown, _ = rows()[row]
    documented = set(re.findall(r'"(\w+)"', shown))
    required = set(re.findall(r'"(\w+)"(?!\?)', shown))

    body = BODIES[dialect.strip("`")][0]
    found = names(client.post(path, json=body).json())

    if documented and (path != COHERE_PATH or "documents" not in body):
        assert required <= found <= documented | {"prompt_tokens", "total_tokens"}
    else:
        assert {"id", "object", "created", "model", "results", "meta", "usage"} <= found


@pytest.mark.parametrize(
    ("dialect", "body"),
    [(name, body) for name, bodies in BODIES.items() for body in bodies],
)
def test_a_row_names_the_type_of_the_error(
    client: TestClient, dialect: str, body: dict[str, Any]
) -> None:
    [error] = [row[3] for row in rows() if row[1] == f"`{dialect}`"]

    refused = client.post("/rerank", json=body | {"query": ""} | broken(body))

    assert refused.status_code == 400
    answer = refused.json()
    assert isinstance(answer["error"], str if error == "a string" else dict)
    assert answer["message"] == answer["detail"]
    assert answer["message"].endswith(("query must not be empty", "queries[0] must not be empty"))


def names(value: Any) -> set[str]:
    """Every field's name, at any depth."""
    if isinstance(value, list):
        return set().union(*map(names, value))
    if isinstance(value, dict):
        return set(value) | set().union(*map(names, value.values()))
    return set()


def broken(body: dict[str, Any]) -> dict[str, Any]:
    """Fields that hold an empty query, where it is not in `query`."""
    if isinstance(body.get("input"), dict):
        return {"input": {**body["input"], "query": ""}}
    return {"queries": [{"textQuery": {"text": ""}}]} if "queries" in body else {}


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        # Two rows match: the first counts.
        ({"query": "q", "texts": ["a"], "documents": ["a"]}, "tei"),
        ({"query": "q", "passages": ["a"], "texts": ["a"]}, "nim"),
        ({"query": "q", "documents": ["a"], "property": "", "top_k": 1}, "weaviate"),
        ({"query": "q", "documents": ["a"], "input": ["a"]}, "mixedbread"),
        # A null counts as absent ...
        ({"query": "q", "documents": ["a"], "texts": None}, "openai"),
        ({"query": "q", "documents": ["a"], "input": None}, "openai"),
        ({"query": "q", "documents": ["a"], "passages": None}, "openai"),
        # ... except where Voyage's client sends one.
        ({"query": "q", "documents": ["a"], "top_k": None}, "voyage"),
        ({"query": "q", "documents": None, "top_k": 1}, "openai"),
        # A word instead of Voyage's boolean is rankd's own.
        ({"query": "q", "documents": ["a"], "truncation": "chunk"}, "openai"),
        ({"query": "q", "documents": ["a"], "truncation": "true"}, "voyage"),
        ({"query": "q", "documents": ["a"], "truncation": None}, "voyage"),
        # A string where a row has an object or an array matches no row.
        ({"query": "q", "input": "a"}, "openai"),
        ({"query": "q"}, "openai"),
        ({}, "openai"),
    ],
)
def test_the_body_decides_the_dialect(body: dict[str, Any], dialect: str) -> None:
    assert detect.dialect_of(body).name == dialect


def test_fields_of_another_matching_row_are_warned_about(client: TestClient) -> None:
    reply = client.post("/rerank", json={"query": "q", "texts": ["a"], "documents": ["b"]})

    assert len(reply.json()) == 1
    assert reply.headers["x-rankd-warnings"] == "unknown field 'documents' was ignored"


@pytest.mark.parametrize("extra", [{"top_k": 1}, {"truncation": True}, {"property": ""}])
def test_documents_at_coheres_path_are_in_coheres_format(
    client: TestClient, extra: dict[str, Any]
) -> None:
    """A client that sends Cohere `top_k` by mistake reads `results` all the same."""
    reply = client.post(COHERE_PATH, json={"query": QUERY, "documents": TEXTS, **extra})

    assert len(reply.json()["results"]) == len(TEXTS)
    ignored = [f"unknown field {name!r} was ignored" for name in extra if name != "truncation"]
    assert reply.json()["meta"].get("warnings", []) == ignored
    refused = client.post(COHERE_PATH, json={"query": "", "documents": TEXTS, **extra})
    assert isinstance(refused.json()["error"], dict)
    elsewhere = client.post("/rerank", json={"query": QUERY, "documents": TEXTS, **extra})
    assert "results" not in elsewhere.json()


def test_every_dialect_has_a_prefix_with_the_shared_get_paths(client: TestClient) -> None:
    prefixes = set(re.findall(r"`/(\w+)`", API.split("A **prefix**")[1].split("Under each")[0]))

    assert prefixes
    assert prefixes == {dialect.name for dialect in DIALECTS}
    for prefix in prefixes:
        assert client.get(f"/{prefix}/health").status_code == 200
        assert '"builtin"' in client.get(f"/{prefix}/v1/models").text


def test_a_matcher_that_an_earlier_one_hides_refuses_to_start() -> None:
    class Greedy(openai.OpenAI):
        name = "greedy"

    with pytest.raises(SetupError, match="greedy and openai both claim bodies with documents"):
        detect.refuse_ambiguous_matchers((Greedy(), openai.dialect))
    with pytest.raises(SetupError, match="openai and voyage both claim bodies with documents"):
        detect.refuse_ambiguous_matchers((openai.dialect, voyage.dialect))
    detect.refuse_ambiguous_matchers((voyage.dialect, openai.dialect))


@pytest.mark.parametrize(
    ("first", "second", "hides"),
    [
        ({"a": "any"}, {"a": "any"}, True),
        ({"a": "any"}, {"a": "array"}, True),
        ({"a": "array"}, {"a": "any"}, False),
        ({"a": "array"}, {"a": "object"}, False),
        ({"a": "present"}, {"a": "any", "b": "any"}, True),
        ({"a": "any", "b": "any"}, {"a": "any"}, False),
        ({"a": "any"}, {"a": "present"}, False),
    ],
)
def test_one_matcher_hides_another(
    first: dict[str, base.Kind], second: dict[str, base.Kind], hides: bool
) -> None:
    assert BodyMatcher.on(**first).hides(BodyMatcher.on(**second)) is hides
