"""The union: on a path that many vendors share, the body decides who is speaking.

Clients drop and add pieces of paths as they like, so a path alone is never enough:
`/rerank` is called by clients of Cohere, TEI, vLLM, Infinity and Weaviate, and
`/v1/rerank` by clients that send TEI's body to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from rankd.dialects import dashscope, mixedbread, nim, openai, tei, voyage, weaviate
from rankd.dialects.base import Dialect
from rankd.errors import SetupError

# Who is asked first whether a body is theirs. The last takes what nobody claims.
ORDER: tuple[Dialect, ...] = (
    dashscope.native,
    nim.dialect,
    tei.dialect,
    mixedbread.dialect,
    weaviate.dialect,
    voyage.dialect,
    openai.dialect,
)


def dialect_of(body: Mapping[str, Any]) -> Dialect:
    """Whose dialect a body is in; ours when nobody claims it."""
    for dialect in ORDER:
        if any(claim.covers(body) for claim in dialect.matchers):
            return dialect
    return ORDER[-1]


def refuse_ambiguous_matchers(order: Sequence[Dialect] = ORDER) -> None:
    """Raises `SetupError` when a dialect claims bodies that another one before it takes."""
    for first, second in combinations(order, 2):
        for claim in first.matchers:
            for hidden in second.matchers:
                if claim.hides(hidden):
                    raise SetupError(
                        f"dialects {first.name} and {second.name} both claim bodies with {hidden}"
                    )
