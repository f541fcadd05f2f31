"""An example request for each dialect, and a path that accepts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankd.dialects.base import Dialect

# Fields of examples that are arrays of texts, but not of documents.
_NOT_DOCUMENTS = {"queries", "rank_fields"}


def example(dialect: Dialect) -> dict[str, Any]:
    """The example body of /openapi.json."""
    return dict(dialect.Request.model_json_schema()["example"])


def home(dialect: Dialect, model: str = "some-id") -> str:
    """A path under the dialect's own prefix; some contain a model name."""
    path = [*dialect.mounted, *dialect.paths][0]
    return dialect.prefix + path.replace("{model:path}", model)


def with_documents(body: dict[str, Any], documents: Sequence[str]) -> dict[str, Any]:
    """An example with other documents, each in the form that the example has."""

    def replaced(name: str, value: Any) -> Any:
        match value:
            case [first, *_] if name not in _NOT_DOCUMENTS:
                return [_like(first, document, index) for index, document in enumerate(documents)]
            case dict():
                return {inner: replaced(inner, item) for inner, item in value.items()}
        return value

    return {name: replaced(name, value) for name, value in body.items()}


def _like(form: Any, document: str, index: int) -> Any:
    match form:
        case str():
            return document
        case {"inlineDocumentSource": _}:
            inner = {"type": "TEXT", "textDocument": {"text": document}}
            return {"type": "INLINE", "inlineDocumentSource": inner}
        case {"content": _}:
            return {"id": str(index), "content": document}
    return {"text": document}


def index_of(result: dict[str, Any]) -> int:
    """The index of a result's document; Google's results have the record's id instead."""
    return int(result["index"] if "index" in result else result["id"])
