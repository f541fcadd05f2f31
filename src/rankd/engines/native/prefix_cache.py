"""Keys and values of heads, kept between batches.

A request that is split over several batches computes its head once, and a new
question under the same instruction computes only what differs: the head of a
request is template and instruction first, query last.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from rankd.engines.native.architecture import Architecture

# About 17 heads of Qwen3-Reranker-0.6B in float32, 27 of the 8B in bfloat16.
BYTES = 256 * 2**20

# Looking for a common beginning is linear in these; the latest are the likely ones.
CANDIDATES = 8


@dataclass(frozen=True, slots=True, eq=False)
class CachedPrefix:
    """A head's ids, and for each layer its keys and values.

    Attributes:
        keys, values: [layers, kv_heads, tokens, head_dim].
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
    """The heads used last, bounded by the bytes they hold.

    Args:
        candidates: heads in which the beginning of a new one is looked for; 0 computes
            each one whole.
    """

    def __init__(
        self,
        shape: Architecture,
        device: torch.device,
        dtype: torch.dtype,
        limit: int,
        *,
        candidates: int = CANDIDATES,
    ) -> None:
        self._shape = shape
        self._device = device
        self._dtype = dtype
        self._limit = limit
        self._candidates = candidates
        self._kept: OrderedDict[bytes, CachedPrefix] = OrderedDict()
        self._bytes = 0

    def get(self, ids: array[int]) -> CachedPrefix | None:
        key = ids.tobytes()
        head = self._kept.get(key)
        if head is not None:
            self._kept.move_to_end(key)
        return head

    def start(self, ids: array[int]) -> tuple[CachedPrefix, int]:
        """A head to be computed, and how many of its first tokens are known already."""
        shape = self._shape
        size = (shape.layers, shape.kv_heads, len(ids), shape.head_dim)
        keys = torch.empty(size, dtype=self._dtype, device=self._device)
        head = CachedPrefix(ids, keys, torch.empty_like(keys))
        like, shared = self._nearest(ids)
        if like is not None and shared:
            head.keys[:, :, :shared] = like.keys[:, :, :shared]
            head.values[:, :, :shared] = like.values[:, :, :shared]
        return head, shared

    def keep(self, head: CachedPrefix) -> None:
        """Keep a head that is computed; the ones unused for longest make room."""
        self._kept[head.ids.tobytes()] = head
        self._bytes += head.bytes
        # The newest stays, however large: the rest of its request needs it.
        while self._bytes > self._limit and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.bytes

    def forget(self) -> None:
        """Give back the memory of all heads."""
        self._kept.clear()
        self._bytes = 0

    def _nearest(self, ids: array[int]) -> tuple[CachedPrefix | None, int]:
        nearest: tuple[CachedPrefix | None, int] = (None, 0)
        for head, _ in zip(reversed(self._kept.values()), range(self._candidates), strict=False):
            shared = _common(head.ids, ids)
            if shared > nearest[1]:
                nearest = (head, shared)
        return nearest


def _common(one: array[int], other: array[int]) -> int:
    """Length of the common beginning."""
    for place, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return place
    return min(len(one), len(other))
