"""Cohere's search units, by the rule it publishes."""

from __future__ import annotations

import pytest

from rankd.ranking.billing import search_units


@pytest.mark.parametrize(
    ("query", "documents", "units"),
    [
        (10, [50], 1),
        (10, [50] * 100, 1),
        (10, [50] * 101, 2),
        (10, [50] * 1000, 10),
        # With a query of 50 tokens, 450 make one chunk.
        (50, [450] * 100, 1),
        (50, [450] * 99 + [451], 2),
        (50, [900] * 50, 1),
        (50, [901] * 50, 2),
        (0, [500] * 100, 1),
        (0, [501] * 100, 2),
        # A long query counts as half a chunk, so that there is room for a document.
        (250, [250] * 100, 1),
        (4000, [250] * 100, 1),
        (4000, [251] * 100, 2),
        # A document without text is one chunk.
        (10, [0] * 101, 2),
    ],
)
def test_a_unit_is_a_query_with_a_hundred_chunks(
    query: int, documents: list[int], units: int
) -> None:
    assert search_units(query, documents) == units
