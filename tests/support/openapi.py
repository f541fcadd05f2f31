"""Reads an OpenAPI document: its operations, fields, examples and schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

# Settings of schemathesis. Its bodies are valid or invalid by the schema. Invalid ones may be
# accepted: rankd reads "true" as true. A 504 is the right answer to a `timeout_ms` of 1.
FUZZER = """
warnings = false

[generation]
deterministic = true
max-examples = 5
no-shrink = true

[phases.stateful]
enabled = false

[checks]
enabled = false
not_a_server_error = { enabled = true, expected-statuses = ["2xx", "4xx", 504] }
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_headers_conformance.enabled = true
response_schema_conformance.enabled = true
"""


def closed(node: Any) -> Any:
    """A copy of a schema in which unknown fields are invalid, unless it allows them."""
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    strict = {"additionalProperties": False} if isinstance(node.get("properties"), dict) else {}
    return {**strict, **{name: closed(value) for name, value in node.items()}}


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Each operation with its name, such as `POST /v1/rerank`."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def requests(document: Json) -> Iterator[tuple[str, Json]]:
    """The name of each operation that has a JSON body, and the body's schema."""
    for where, operation in operations(document):
        if "requestBody" in operation:
            yield where, operation["requestBody"]["content"]["application/json"]["schema"]


def fields(document: Json) -> Iterator[tuple[str, str, Json, bool]]:
    """Every field of every request: operation, name, schema, and whether it is required."""
    for where, schema in requests(document):
        for node in shapes_in(schema):
            for name, field in node.get("properties", {}).items():
                yield where, name, field, name in node.get("required", ())


def shapes_in(schema: Json) -> Iterator[Json]:
    """A schema and all schemas in it, without its examples."""
    yield schema
    inner = [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            inner.append(schema[name])
    for one in inner:
        yield from shapes_in(one)


def examples(operation: Json) -> Iterator[Json]:
    """Every example body of an operation."""
    content = operation.get("requestBody", {}).get("content", {})
    for media in content.values():
        yield from (one["value"] for one in media.get("examples", {}).values())
        if "example" in media:
            yield media["example"]
        for shape in shapes_in(media["schema"]):
            if "example" in shape:
                yield shape["example"]


def walk(node: Any) -> Iterator[Json]:
    """Every object in a JSON value."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)
