"""Search units, the unit that Cohere bills by; its clients expect them in responses.

"A single search unit is a query with up to 100 documents to be ranked. Documents longer than
500 tokens when including the length of the search query will be split up into multiple chunks,
where each chunk counts as a singular document." (cohere.com/pricing)
"""

from __future__ import annotations

from collections.abc import Iterable

_DOCUMENTS_PER_UNIT = 100
_TOKENS_PER_CHUNK = 500

# The pricing page does not say how a chunk is divided. Cohere's best practices put the query
# into each chunk, and truncate a query that would take more than half of it.
MAX_QUERY_TOKENS = _TOKENS_PER_CHUNK // 2


def search_units(query: int, documents: Iterable[int]) -> int:
    """Search units of one query.

    Args:
        query: tokens of the query; more than `MAX_QUERY_TOKENS` count as that many.
        documents: for each document, the tokens that the model read.
    """
    room = _TOKENS_PER_CHUNK - min(query, MAX_QUERY_TOKENS)
    chunks = sum([max(1, -(-tokens // room)) for tokens in documents])
    return -(-chunks // _DOCUMENTS_PER_UNIT)
