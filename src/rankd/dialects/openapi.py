"""Parts of /openapi.json that FastAPI cannot derive: request bodies, limits, error statuses."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

# Headers of an error.
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
            "description": "Seconds after which to retry.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}

_STATUSES = {
    400: "What was wrong, with the field, the limit and the value.",
    401: "An API key is required, and the request has none or a wrong one.",
    404: "The request names a model that is not served (only with --strict-model).",
    408: "The request took too long to arrive.",
    413: "The request has too many documents or bytes.",
    415: "The body is compressed.",
    429: "Too many requests wait already; retry after Retry-After.",
    431: "The headers are too long.",
    500: "An error inside rankd; it has been logged.",
    503: "The engine is down, or the server is stopping.",
    504: "`timeout_ms` has passed.",
}


def failures(
    model: Any, statuses: Collection[int] = tuple(_STATUSES)
) -> dict[int | str, dict[str, Any]]:
    """The statuses of errors, all in one format, as FastAPI's `responses`."""
    return {
        status: {
            "model": model,
            "description": _STATUSES[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }


def body_of(*models: Any) -> dict[str, Any]:
    """The `requestBody` of a route that parses its body itself; several models are alternatives."""
    schemas = [_inlined(TypeAdapter(model).json_schema()) for model in models]
    schemas = [member for schema in schemas for member in schema.get("anyOf", [schema])]
    content: dict[str, Any] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    examples = {
        f"{index}-{schema.get('title', '')}": {"value": schema["example"]}
        for index, schema in enumerate(schemas)
        if "example" in schema
    }
    if len(examples) > 1:
        content["examples"] = examples
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def completed(document: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    """FastAPI's document with path parameters and limits, without 422; changed in place.

    Args:
        limits: this server's value for each name that `x-limit` has in a schema.
    """
    for path, operations in document["paths"].items():
        for operation in operations.values():
            # FastAPI's own validation error; no route answers it.
            operation["responses"].pop("422", None)
            _add_parameters(path, operation)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    _set_limits(document, limits)
    return document


def _add_parameters(path: str, operation: dict[str, Any]) -> None:
    """Path parameters that a route reads itself."""
    present = {parameter["name"] for parameter in operation.get("parameters", ())}
    for name in _IN_PATH.findall(path):
        if name not in present:
            operation.setdefault("parameters", []).append(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": _PARAMETER,
                    "schema": {"type": "string", "minLength": 1},
                }
            )


_IN_PATH = re.compile(r"{(\w+)}")
_PARAMETER = "Model name; may hold slashes. `model` in the body overrides it."


def _set_limits(node: Any, limits: dict[str, int]) -> None:
    if isinstance(node, dict):
        if name := node.pop("x-limit", None):
            node["maxItems"] = limits[name]
        for value in node.values():
            _set_limits(value, limits)
    elif isinstance(node, list):
        for value in node:
            _set_limits(value, limits)


# Pydantic does not translate these keywords for numbers that have a validator of ours.
_KEYWORDS = {"ge": "minimum", "le": "maximum"}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$ref`, which would not resolve inside the whole document."""
    parts = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                siblings = {name: value for name, value in node.items() if name != "$ref"}
                return resolve({**parts[node["$ref"].rsplit("/", 1)[1]], **siblings})
            return {_KEYWORDS.get(name, name): resolve(value) for name, value in node.items()}
        if isinstance(node, list):
            return [resolve(value) for value in node]
        return node

    resolved: dict[str, Any] = resolve(schema)
    return resolved
