"""What goes into the pipe comes out of it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rankd.engines.native import framing
from rankd.types import Prompt

_ids = st.lists(st.integers(0, 151_668), max_size=6).map(tuple)


@given(st.lists(st.builds(Prompt, _ids, _ids), min_size=1, max_size=12))
def test_prompts_survive_the_pipe(prompts: list[Prompt]) -> None:
    batch = framing.unpack_prompts(framing.pack_prompts(prompts))

    received = [Prompt(tuple(batch.prefixes[head]), tuple(tail)) for head, tail in batch.suffixes]
    assert received == prompts


def test_equal_heads_are_sent_once() -> None:
    heads = (tuple(range(7, 10)), tuple(range(7, 10)), (5,))
    prompts = [Prompt(head, (1,)) for head in heads]

    batch = framing.unpack_prompts(framing.pack_prompts(prompts))

    assert [list(head) for head in batch.prefixes] == [[7, 8, 9], [5]]


def test_logits_survive_the_pipe_exactly() -> None:
    logits = [0.1, -math.pi, 1e300, 0.0]

    assert framing.unpack_logits(framing.pack_logits(logits)) == logits
