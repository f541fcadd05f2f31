"""Keys and values of heads: what is found again, what makes room."""

from __future__ import annotations

from array import array
from typing import Any

import torch

from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.prefix_cache import PrefixCache

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 10,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 8,
}
# Keys and values of two layers, four numbers of four bytes each.
TOKEN_BYTES = 2 * 2 * 4 * 4


def _heads(tokens: int) -> PrefixCache:
    return PrefixCache(
        read_architecture(CONFIG), torch.device("cpu"), torch.float32, tokens * TOKEN_BYTES
    )


def _add(heads: PrefixCache, *ids: int) -> int:
    head, known = heads.start(array("i", ids))
    head.keys[:, :, known:] = float(ids[-1])
    head.values[:, :, known:] = -float(ids[-1])
    heads.keep(head)
    return known


def test_a_kept_head_is_found_by_its_ids() -> None:
    heads = _heads(100)
    _add(heads, 1, 2, 3)

    assert heads.get(array("i", [1, 2])) is None
    found = heads.get(array("i", [1, 2, 3]))
    assert found is not None
    assert list(found.ids) == [1, 2, 3]


def test_a_new_head_begins_with_what_it_shares_with_a_kept_one() -> None:
    heads = _heads(100)
    _add(heads, 1, 2, 3)
    _add(heads, 1, 7)

    head, known = heads.start(array("i", [1, 2, 4, 5]))

    assert known == 2
    assert head.keys[:, :, :2].eq(3).all()
    assert head.values[:, :, :2].eq(-3).all()


def test_a_head_that_begins_another_is_known_whole() -> None:
    heads = _heads(100)
    _add(heads, 1, 2, 3)

    assert heads.start(array("i", [1, 2]))[1] == 2


def test_the_head_unused_for_longest_makes_room() -> None:
    heads = _heads(6)
    _add(heads, 1, 1)
    _add(heads, 2, 2)
    _add(heads, 3, 3)
    heads.get(array("i", [1, 1]))
    _add(heads, 4, 4)

    kept = [first for first in (1, 2, 3, 4) if heads.get(array("i", [first, first]))]

    assert kept == [1, 3, 4]


def test_a_head_larger_than_the_limit_stays_until_the_next() -> None:
    heads = _heads(2)
    _add(heads, 1, 2, 3)
    kept = heads.get(array("i", [1, 2, 3]))
    _add(heads, 4, 5, 6)

    assert kept is not None  # The rest of its request needs it.
    assert heads.get(array("i", [1, 2, 3])) is None
    assert heads.get(array("i", [4, 5, 6])) is not None
