"""Cohere's unit, which clients that pay by it expect to read.

"A single search unit is a query with up to 100 documents to be ranked. Documents longer than
500 tokens when including the length of the search query will be split up into multiple chunks,
where each chunk counts as a singular document." (cohere.com/pricing)
"""

from __future__ import annotations

from collections.abc import Iterable

_DOCUMENTS = 100
_TOKENS = 500

# What is not said there is how a chunk is divided. Cohere's best practices put the query into
# each, and cut one that would take more than half.
LONGEST_QUERY = _TOKENS // 2


def search_units(query: int, documents: Iterable[int]) -> int:
    """Units of one query.

    Args:
        query: its tokens; more than `LONGEST_QUERY` count as that many.
        documents: tokens of each that the model read.
    """
    room = _TOKENS - min(query, LONGEST_QUERY)
    chunks = sum(max(1, -(-tokens // room)) for tokens in documents)
    return -(-chunks // _DOCUMENTS)
