"""What each reference example holds: the request, its paths, and the shape of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

QUERY = "Who repairs bicycles in Utrecht?"
TEXTS = [
    "Ferries to Texel leave from Den Helder.",
    "Anna repairs bicycles in her shop in Utrecht.",
    "Bicycles are cheap in spring.",
]
OBJECTS = [{"id": str(index), "text": text} for index, text in enumerate(TEXTS)]


@dataclass(frozen=True)
class Maybe:
    """A field that the vendor's reference lists but does not always send."""

    shape: Any


@dataclass(frozen=True)
class Reference:
    """One example of one vendor's API reference.

    Attributes:
        path: the vendor's path.
        prefix: rankd's prefix that forces the vendor's dialect.
        shape: the answer's fields: a type, `[item shape]`, `{field: shape}`, or a value.
        unprefixed: the answer's shape without the prefix, where it differs from `shape`; None
            where rankd recognises this body only under the prefix.
        request_order: results keep the order of the request; most vendors sort them.
        logits: scores are logits instead of probabilities.
    """

    name: str
    path: str
    prefix: str
    body: dict[str, Any]
    shape: Any
    unprefixed: Any = "same"
    headers: dict[str, str] = field(default_factory=dict)
    request_order: bool = False
    logits: bool = False


TOKENS = {"prompt_tokens": int, "total_tokens": int}
RANKED = {"index": int, "relevance_score": float}
RANKED_OBJECT = {**RANKED, "document": {"text": str}}
