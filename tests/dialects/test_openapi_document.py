"""/openapi.json is complete and true: fields, examples, statuses, paths."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS, post_routes, route_specs
from rankd.dialects.openapi import body_of
from support.calling import calling
from support.openapi import (
    FUZZER,
    Json,
    closed,
    examples,
    fields,
    operations,
    requests,
    shapes_in,
    walk,
)
from support.servers import serving

# JSON Schema's keywords; readers of the document ignore others.
KEYWORDS = {
    *("type", "anyOf", "items", "properties", "required", "additionalProperties", "enum", "const"),
    *("title", "description", "example", "default", "minimum", "maximum", "minLength"),
    *("maxLength", "pattern", "minItems", "maxItems", "minProperties"),
}

# How a description says what happens if an optional field is not sent.
ABSENT = re.compile("[Aa]bsent|Default:|Another name of|Accepted")


@pytest.fixture(scope="module")
def document(client: TestClient) -> Json:
    reply: Json = client.get("/openapi.json").json()
    return reply


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    """An app that requires a key and the served model's name."""
    settings = Settings(engine="fake", api_keys=("secret",), strict_model=True)
    with calling(settings) as client:
        yield client


@pytest.mark.slow
def test_fuzzed_requests_get_documented_answers(tmp_path: Path) -> None:
    (tmp_path / "fuzzer.toml").write_text(FUZZER)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "fuzzer.toml", "run"]
    limits = ("--max-documents", "20", "--max-body-bytes", "100000")
    with serving("--engine", "fake", "--no-access-log", *limits) as server:
        fuzzed = subprocess.run(
            [*command, "--no-color", f"{server.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        _, errors = server.stop(signal.SIGTERM)

    assert fuzzed.returncode == 0, fuzzed.stdout
    assert re.search(r"\d{4,} generated, (\d+) passed", fuzzed.stdout), fuzzed.stdout
    assert "Traceback" not in errors


def test_the_document_is_valid_and_its_references_resolve(document: Json) -> None:
    schemathesis.openapi.from_dict(document).validate()

    schemas = document["components"]["schemas"]
    referred = {node["$ref"] for node in walk(document) if "$ref" in node}
    assert referred == {f"#/components/schemas/{name}" for name in schemas}


def test_no_operation_answers_422(document: Json) -> None:
    # Several clients can read only a list there.
    assert [where for where, one in operations(document) if "422" in one["responses"]] == []


def test_every_operation_has_a_tag_and_a_summary(document: Json) -> None:
    documented = {tag["name"] for tag in document["tags"]} | {"operations"}
    names = [operation["operationId"] for _, operation in operations(document)]

    assert len(names) == len(set(names))
    for where, operation in operations(document):
        assert len(operation["tags"]) == 1, where
        assert set(operation["tags"]) <= documented, where
        assert operation["summary"], where


def test_every_dialect_is_a_tag_with_operations(document: Json) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    names = {dialect.name for dialect in DIALECTS}

    assert names <= set(tags)
    assert names <= used
    assert all(tags.values())


def test_every_request_field_has_a_description(document: Json) -> None:
    missing = [
        f"{where}: {name}"
        for where, name, field, _ in fields(document)
        if not field.get("description", "").endswith(".")
    ]

    assert missing == []


def test_every_optional_field_says_its_default(document: Json) -> None:
    missing = [
        f"{where}: {name}: {field['description']}"
        for where, name, field, required in fields(document)
        if not required and not ABSENT.search(field["description"])
    ]

    assert missing == []


def test_request_schemas_use_keywords_of_json_schema(document: Json) -> None:
    unknown = [
        f"{where}: {keyword}"
        for where, schema in requests(document)
        for node in shapes_in(schema)
        for keyword in node.keys() - KEYWORDS
    ]

    assert unknown == []


# Bedrock's array of queries holds one.
SHORT_ARRAYS = {("rank_fields", None), ("queries", 1)}


def test_arrays_of_documents_have_the_servers_limit(document: Json) -> None:
    arrays = [
        (where, name, node.get("maxItems"))
        for where, name, field, _ in fields(document)
        for node in shapes_in(field)
        if node.get("type") == "array" and (name, node.get("maxItems")) not in SHORT_ARRAYS
    ]

    assert len(arrays) > len(DIALECTS)
    assert [one for one in arrays if one[2] != 20] == []


def test_every_integer_of_a_request_has_a_minimum(document: Json) -> None:
    # `truncate_prompt_tokens` has no effect, so it has no limit.
    unlimited = [
        f"{where}: {name}"
        for where, name, field, _ in fields(document)
        for node in shapes_in(field)
        if node.get("type") == "integer" and "minimum" not in node
    ]

    assert {one.split(": ")[1] for one in unlimited} <= {"truncate_prompt_tokens"}


def test_every_example_is_answered_as_documented(client: TestClient, document: Json) -> None:
    sent = 0
    for where, operation in operations(document):
        method, path = where.split(" ")
        for body in examples(operation):
            reply = client.request(method, path.replace("{model}", "some/model"), json=body)

            assert reply.status_code == 200, f"{where}: {reply.text}"
            conforms(reply, operation, document, where)
            sent += 1

    assert sent >= len(DIALECTS)


def test_every_operation_with_a_body_shows_an_example(document: Json) -> None:
    missing = [
        where
        for where, operation in operations(document)
        if "requestBody" in operation and not list(examples(operation))
    ]

    assert missing == []


def test_every_request_without_a_body_is_answered_as_documented(
    client: TestClient, document: Json
) -> None:
    for where, operation in operations(document):
        method, path = where.split(" ")
        if "requestBody" not in operation:
            reply = client.request(method, path.replace("{model}", "some/model"))

            assert reply.is_success, f"{where}: {reply.text}"
            conforms(reply, operation, document, where)


def test_a_wrong_body_is_answered_as_documented(client: TestClient, document: Json) -> None:
    for where, operation in operations(document):
        method, path = where.split(" ")
        if "requestBody" in operation:
            for body in ("{}", "[]", "no", '{"query": 1, "documents": []}'):
                reply = client.request(method, path.replace("{model}", "m"), content=body)

                assert reply.status_code == 400, f"{where}: {reply.text}"
                conforms(reply, operation, document, where)


def test_a_missing_key_is_answered_as_documented(guarded: TestClient, document: Json) -> None:
    for where, operation in operations(document):
        method, path = where.split(" ")
        reply = guarded.request(method, path.replace("{model}", "builtin"))

        assert reply.status_code in (200, 204, 401), f"{where}: {reply.text}"
        conforms(reply, operation, document, where)


def test_an_unknown_model_is_answered_as_documented(guarded: TestClient, document: Json) -> None:
    for where, operation in operations(document):
        method, path = where.split(" ")
        for body in examples(operation):
            reply = guarded.request(
                method,
                path.replace("{model}", "builtin"),
                json={**body, "model": "another"},
                headers={"Authorization": "Bearer secret"},
            )

            assert reply.status_code == 404, f"{where}: {reply.text}"
            conforms(reply, operation, document, where)


def test_every_served_path_is_described() -> None:
    served = {route.path for route in post_routes()}
    described = {spec.path for spec in route_specs()}

    assert served
    assert served - described == set()


@pytest.mark.slow
def test_hidden_paths_answer_as_their_spec_says(client: TestClient) -> None:
    hidden = [spec for spec in route_specs() if not spec.shown]
    for spec in hidden:
        path = re.sub("{.*}", "some/model", spec.path)
        [good, *_] = examples(body_of(*spec.requests))
        for body, status, models in ((good, 200, spec.responses), ({}, 400, spec.failures)):
            reply = client.post(path, json=body)

            assert reply.status_code == status, f"{path}: {reply.text}"
            shapes = [closed(TypeAdapter(model).json_schema()) for model in models]
            fitting = [one for one in shapes if jsonschema_rs.is_valid(one, reply.json())]
            assert fitting, f"{path}: {reply.text}"

    assert len(hidden) > 100


def conforms(reply: Any, operation: Json, document: Json, where: str) -> None:
    """The answer has a documented status, content type and headers, and no field beside those."""
    documented = operation["responses"].get(str(reply.status_code))
    assert documented, f"{where}: {reply.status_code} is not documented"
    for name, header in documented.get("headers", {}).items():
        assert name in reply.headers or not header.get("required"), f"{where}: no {name}"
    if not documented.get("content"):
        assert not reply.content, f"{where}: {reply.text}"
        return
    kind = reply.headers["content-type"].partition(";")[0]
    schema = documented["content"][kind]["schema"]
    if kind != "application/json":
        return
    whole = closed({**schema, "components": document["components"]})
    problems = list(jsonschema_rs.validator_for(whole).iter_errors(reply.json()))
    assert problems == [], f"{where}: {problems[0].message}: {reply.text}"
