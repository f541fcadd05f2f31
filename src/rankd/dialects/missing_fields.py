"""Names the unknown fields of an object that lacks a required one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from rankd.config.text import shorten

# Names for one thing, by servers and their clients. A missing field may be any of them.
_NAMES = (
    {"query", "queries", "q", "question", "search", "search_query", "prompt", "source_sentence"},
    {
        *("documents", "docs", "document", "texts", "passages", "input", "inputs", "candidates"),
        *("contexts", "chunks", "corpus", "sentences", "items", "nodes", "pairs"),
    },
)

# How many unknown fields an error names. The suggested field is one of them.
_MAX_FIELDS = 10
_MAX_LENGTH = 40
_SIMILAR = 0.6


def unknown_fields_hint(
    model: type[BaseModel], location: Sequence[int | str], value: object
) -> str:
    """`; 'docs' is not known: did you mean documents?`; empty if every field is known.

    Args:
        model: of the whole body.
        location: of the missing field.
        value: the object that lacks it.
    """
    owner = _owner(model, location[:-1])
    if owner is None or not isinstance(value, Mapping):
        return ""
    missing = str(location[-1])
    fields = owner.model_fields
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    unknown = [shorten(name) for name in value if name not in known][:_MAX_FIELDS]
    if meant := [name for name in unknown if _means(name, missing)]:
        return f"; {meant[0]!r} is not known: did you mean {missing}?"
    if not unknown:
        return ""
    return f"; {', '.join(map(repr, unknown))} {'is' if len(unknown) == 1 else 'are'} not known"


def _means(name: str, missing: str) -> bool:
    lower = name.lower()
    if len(lower) > _MAX_LENGTH:
        return False
    if any(lower in names and missing in names for names in _NAMES):
        return True
    return difflib.SequenceMatcher(None, lower, missing).ratio() >= _SIMILAR


def _owner(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model of the object at a location; None where there is no single one."""
    owner: type[BaseModel] | None = model
    for part in location:
        field = owner.model_fields.get(str(part)) if owner else None
        owner = _nested(field.annotation) if field else None
    return owner


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The one model in an annotation such as `Model | None`."""
    models = [
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    return models[0] if len(models) == 1 else None
