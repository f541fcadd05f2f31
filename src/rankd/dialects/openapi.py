"""What /openapi.json says: requests that routes read by themselves, limits, every status."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

# What a refusal says beside its body.
_HEADERS: dict[int, dict[str, Any]] = {
    401: {
        "WWW-Authenticate": {
            "description": "How to send a key.",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    429: {
        "Retry-After": {
            "description": "Seconds after which to try again.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}

_SAYS = {
    400: "What was wrong, with the field, the limit and the value.",
    401: "A key is needed, and none or a wrong one was sent.",
    404: "Another model is served here (only with --strict-model).",
    408: "The request took too long to arrive.",
    413: "More documents or bytes than one request may have.",
    415: "The body is compressed.",
    429: "Too much waits already; see Retry-After.",
    431: "The head of the request is too long.",
    500: "An error inside rankd; it has been logged.",
    503: "The engine is down or the server is stopping.",
    504: "`timeout_ms` has passed.",
}


def failures(
    model: Any, statuses: Collection[int] = tuple(_SAYS)
) -> dict[int | str, dict[str, Any]]:
    """Every status of a refusal, in one envelope."""
    return {
        status: {
            "model": model,
            "description": _SAYS[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def body_of(*models: Any) -> dict[str, Any]:
    """What /docs shows of a body that a route reads by itself; several are alternatives."""
    shapes = [_inlined(TypeAdapter(model).json_schema()) for model in models]
    shapes = [one for shape in shapes for one in shape.get("anyOf", [shape])]
    content: dict[str, Any] = {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}
    examples = {
        f"{place}-{shape.get('title', '')}": {"value": shape["example"]}
        for place, shape in enumerate(shapes)
        if "example" in shape
    }
    if len(examples) > 1:
        content["examples"] = examples
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def completed(document: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    """FastAPI's document with what it cannot know.

    Args:
        limits: what `x-limit` in a schema stands for, as this server is set.
    """
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI's own validation error: nothing here ever answers it.
            operation["responses"].pop("422", None)
            _name_parameters(path, operation)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    _set_limits(document, limits)
    return document


def _name_parameters(path: str, operation: dict[str, Any]) -> None:
    """Of a path, those that a route reads by itself."""
    known = {parameter["name"] for parameter in operation.get("parameters", ())}
    for name in _IN_PATH.findall(path):
        if name not in known:
            operation.setdefault("parameters", []).append(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": _NAMED,
                    "schema": {"type": "string", "minLength": 1},
                }
            )


_IN_PATH = re.compile(r"{(\w+)}")
_NAMED = "As `model` in the body, which comes first; may hold slashes."


def _set_limits(node: Any, limits: dict[str, int]) -> None:
    if isinstance(node, dict):
        if name := node.pop("x-limit", None):
            node["maxItems"] = limits[name]
        for value in node.values():
            _set_limits(value, limits)
    elif isinstance(node, list):
        for value in node:
            _set_limits(value, limits)


# Pydantic leaves these as they are where a validator of ours stands before the number.
_KEYWORDS = {"ge": "minimum", "le": "maximum"}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references: they would point into a document it is no part of."""
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                beside = {name: value for name, value in node.items() if name != "$ref"}
                return resolve({**parts[node["$ref"].rsplit("/", 1)[1]], **beside})
            return {_KEYWORDS.get(name, name): resolve(value) for name, value in node.items()}
        if isinstance(node, list):
            return [resolve(value) for value in node]
        return node

    resolved: dict[str, Any] = resolve(schema)
    return resolved
