"""Prompts and logits are unchanged by packing and unpacking."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rankd.engines.native import framing
from rankd.types import Prompt

_ids = st.lists(st.integers(0, 151_668), max_size=6).map(tuple)


@given(st.lists(st.builds(Prompt, _ids, _ids), min_size=1, max_size=12))
def test_unpacked_prompts_equal_the_packed_ones(prompts: list[Prompt]) -> None:
    batch = framing.unpack_prompts(framing.pack_prompts(prompts))

    unpacked = [Prompt(tuple(batch.prefixes[index]), tuple(ids)) for index, ids in batch.suffixes]
    assert unpacked == prompts


def test_equal_prefixes_are_sent_once() -> None:
    prefixes = (tuple(range(7, 10)), tuple(range(7, 10)), (5,))
    prompts = [Prompt(prefix, (1,)) for prefix in prefixes]

    batch = framing.unpack_prompts(framing.pack_prompts(prompts))

    assert [list(prefix) for prefix in batch.prefixes] == [[7, 8, 9], [5]]


def test_unpacked_logits_equal_the_packed_ones_exactly() -> None:
    logits = [0.1, -math.pi, 1e300, 0.0]

    assert framing.unpack_logits(framing.pack_logits(logits)) == logits
