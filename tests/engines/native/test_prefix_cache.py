"""The prefix cache: which prefixes are found, what is copied, what is evicted."""

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
# Keys and values, two layers, four numbers of four bytes each.
TOKEN_BYTES = 2 * 2 * 4 * 4


def _cache(tokens: int) -> PrefixCache:
    """A cache with room for the keys and values of so many tokens."""
    return PrefixCache(
        read_architecture(CONFIG), torch.device("cpu"), torch.float32, tokens * TOKEN_BYTES
    )


def _add(cache: PrefixCache, *ids: int) -> None:
    """Add a prefix whose computed keys are its last id, and whose values are minus that."""
    prefix, shared = cache.allocate(array("i", ids))
    prefix.keys[:, :, shared:] = float(ids[-1])
    prefix.values[:, :, shared:] = -float(ids[-1])
    cache.add(prefix)


def test_a_cached_prefix_is_found_by_its_ids() -> None:
    cache = _cache(100)
    _add(cache, 1, 2, 3)

    assert cache.get(array("i", [1, 2])) is None
    prefix = cache.get(array("i", [1, 2, 3]))
    assert prefix is not None
    assert list(prefix.ids) == [1, 2, 3]


def test_a_new_prefix_copies_its_common_beginning_with_a_cached_one() -> None:
    cache = _cache(100)
    _add(cache, 1, 2, 3)
    _add(cache, 1, 7)

    prefix, shared = cache.allocate(array("i", [1, 2, 4, 5]))

    assert shared == 2
    assert prefix.keys[:, :, :2].eq(3).all()
    assert prefix.values[:, :, :2].eq(-3).all()


def test_the_beginning_of_a_cached_prefix_is_copied_whole() -> None:
    cache = _cache(100)
    _add(cache, 1, 2, 3)

    assert cache.allocate(array("i", [1, 2]))[1] == 2


def test_the_least_recently_used_prefix_is_evicted() -> None:
    cache = _cache(6)
    _add(cache, 1, 1)
    _add(cache, 2, 2)
    _add(cache, 3, 3)
    cache.get(array("i", [1, 1]))
    _add(cache, 4, 4)

    cached = [first for first in (1, 2, 3, 4) if cache.get(array("i", [first, first]))]

    assert cached == [1, 3, 4]


def test_a_prefix_larger_than_the_limit_stays_until_the_next_one() -> None:
    cache = _cache(2)
    _add(cache, 1, 2, 3)
    large = cache.get(array("i", [1, 2, 3]))
    _add(cache, 4, 5, 6)

    assert large is not None  # The rest of its request needs it.
    assert cache.get(array("i", [1, 2, 3])) is None
    assert cache.get(array("i", [4, 5, 6])) is not None
