"""Cache of keys and values of prompt prefixes, kept between batches.

A prefix is the template's beginning, the instruction and the query, in this order. So a
request that is split over several batches computes its prefix once, and another query under
the same instruction computes only the tokens that differ.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from rankd.engines.native.architecture import Architecture

# Default limit: about 17 prefixes of Qwen3-Reranker-0.6B in float32, 27 of the 8B in bfloat16.
MAX_BYTES = 256 * 2**20

# How many of the most recent prefixes are compared with a new one; each costs a linear scan.
CANDIDATES = 8


@dataclass(frozen=True, slots=True, eq=False)
class CachedPrefix:
    """Token ids of a prefix, and its keys and values in every layer.

    Attributes:
        ids: `tokens` token ids.
        keys, values: [layers, kv_heads, tokens, head_dim], in the model's dtype.
    """

    ids: array[int]
    keys: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class PrefixCache:
    """The most recently used prefixes, limited by the bytes of their keys and values.

    Args:
        max_bytes: limit; the newest prefix is kept even when it is larger.
        candidates: recent prefixes that a new one is compared with, to copy the keys and
            values of their common beginning; 0 computes every new prefix whole.
    """

    def __init__(
        self,
        architecture: Architecture,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int,
        *,
        candidates: int = CANDIDATES,
    ) -> None:
        self._architecture = architecture
        self._device = device
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._candidates = candidates
        self._prefixes: OrderedDict[bytes, CachedPrefix] = OrderedDict()
        self._bytes = 0

    def get(self, ids: array[int]) -> CachedPrefix | None:
        key = ids.tobytes()
        prefix = self._prefixes.get(key)
        if prefix is not None:
            self._prefixes.move_to_end(key)
        return prefix

    def allocate(self, ids: array[int]) -> tuple[CachedPrefix, int]:
        """Allocate a new prefix and copy what it shares with a cached one.

        The new prefix is not in the cache until it is computed and added.

        Returns:
            The prefix, and how many of its first tokens have their keys and values already.
        """
        arch = self._architecture
        size = (arch.layers, arch.kv_heads, len(ids), arch.head_dim)
        keys = torch.empty(size, dtype=self._dtype, device=self._device)
        prefix = CachedPrefix(ids, keys, torch.empty_like(keys))
        nearest, shared = self._longest_match(ids)
        if nearest is not None and shared:
            prefix.keys[:, :, :shared] = nearest.keys[:, :, :shared]
            prefix.values[:, :, :shared] = nearest.values[:, :, :shared]
        return prefix, shared

    def add(self, prefix: CachedPrefix) -> None:
        """Add a computed prefix; evict the least recently used ones beyond the limit."""
        self._prefixes[prefix.ids.tobytes()] = prefix
        self._bytes += prefix.bytes
        # The newest stays, however large: the rest of its request needs it.
        while self._bytes > self._max_bytes and len(self._prefixes) > 1:
            _, oldest = self._prefixes.popitem(last=False)
            self._bytes -= oldest.bytes

    def clear(self) -> None:
        """Free the memory of all prefixes."""
        self._prefixes.clear()
        self._bytes = 0

    def _longest_match(self, ids: array[int]) -> tuple[CachedPrefix | None, int]:
        """The recent prefix with the longest common beginning, and that many tokens."""
        best: tuple[CachedPrefix | None, int] = (None, 0)
        recent = reversed(self._prefixes.values())
        for prefix, _ in zip(recent, range(self._candidates), strict=False):
            shared = _common_length(prefix.ids, ids)
            if shared > best[1]:
                best = (prefix, shared)
        return best


def _common_length(first: array[int], second: array[int]) -> int:
    """Length of the common beginning."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))
