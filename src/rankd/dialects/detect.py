"""Finds out which dialect a body is in, on paths that several vendors share.

The path alone does not tell: clients of Cohere, TEI, vLLM, Infinity and Weaviate call
`/rerank`, and some clients send TEI's body to `/v1/rerank`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from rankd.dialects.base import Dialect
from rankd.dialects.registry import DIALECTS
from rankd.dialects.request import COHERE_PATH
from rankd.errors import SetupError

# Tried from first to last; the last also takes bodies that match none.
ORDER: tuple[Dialect, ...] = tuple(
    sorted(
        (dialect for dialect in DIALECTS if dialect.matchers),
        key=lambda dialect: dialect.detection_rank,
    )
)
FALLBACK = ORDER[-1]

_MATCHERS = [(dialect, matcher) for dialect in ORDER[:-1] for matcher in dialect.matchers]


def dialect_of(body: Mapping[str, Any]) -> Dialect:
    """The dialect that a body is in."""
    names = body.keys()
    for dialect, matcher in _MATCHERS:
        if matcher.names <= names and matcher.covers(body):
            return dialect
    return FALLBACK


def dialect_at(path: str) -> Callable[[Mapping[str, Any]], Dialect]:
    """Finds the dialect of the bodies at a shared path."""
    return _dialect_at_v2 if path == COHERE_PATH else dialect_of


def _dialect_at_v2(body: Mapping[str, Any]) -> Dialect:
    """As `dialect_of`, but `documents` are Cohere's: no other vendor has this path for them."""
    return dialect_of(body) if body.get("documents") is None else FALLBACK


def refuse_ambiguous_matchers(order: Sequence[Dialect] = ORDER) -> None:
    """Raises `SetupError` if an earlier dialect takes every body of a later one's matcher."""
    for first, second in combinations(order, 2):
        for matcher in first.matchers:
            for hidden in second.matchers:
                if matcher.hides(hidden):
                    raise SetupError(
                        f"dialects {first.name} and {second.name} both claim bodies with {hidden}"
                    )
