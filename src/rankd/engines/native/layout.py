"""Lay out one batch without padding: all its tokens in one packed sequence.

New prefixes come first, then suffixes, sorted by prefix and length. Suffixes of the same
prefix and the same length are adjacent and form one segment, so attention can view a segment
as a dense block of [sequences, length, …] without copying.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.prefix_cache import CachedPrefix, PrefixCache


@dataclass(frozen=True, slots=True)
class Segment:
    """Adjacent sequences of equal length that attend to the same prefix tokens.

    Attributes:
        prefix: its keys and values.
        context: tokens of `prefix` that precede each sequence. All of them for suffixes;
            the already cached ones for the rest of a new prefix.
        start: index of the first sequence's first token in the packed batch.
        count: number of sequences.
        length: tokens of each sequence.
        extends_prefix: the one sequence is the uncached rest of `prefix`; its keys and
            values are written into `prefix`.
    """

    prefix: CachedPrefix
    context: int
    start: int
    count: int
    length: int
    extends_prefix: bool

    @property
    def tokens(self) -> slice:
        """The segment's tokens in the packed batch."""
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True, slots=True)
class Layout:
    """A packed batch of `tokens` tokens and S suffixes.

    Attributes:
        ids: token ids, [tokens], int32.
        positions: position of each token in its own prompt, from 0, [tokens].
        segments: in the order of the packed tokens.
        last_tokens: index of each suffix's last token in the packed batch, [S], long.
        suffix_order: index in `TokenBatch.suffixes` of each packed suffix, S numbers.
        new_prefixes: prefixes that this batch computes; add them to the cache afterwards.
        max_length: tokens of the longest prompt, prefix included.
    """

    ids: Tensor
    positions: Tensor
    segments: list[Segment]
    last_tokens: Tensor
    suffix_order: list[int]
    new_prefixes: list[CachedPrefix]
    max_length: int


def lay_out(batch: TokenBatch, cache: PrefixCache) -> Layout:
    """Pack a batch; prefixes found in `cache` are reused, others are computed with the batch."""
    packer = _Packer()
    prefixes = [packer.add_prefix(ids, cache) for ids in batch.prefixes]
    keys = [(prefix_index, len(ids)) for prefix_index, ids in batch.suffixes]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for (prefix_index, _), group in groupby(order, key=keys.__getitem__):
        packer.add_suffixes(prefixes[prefix_index], [batch.suffixes[index][1] for index in group])
    return Layout(
        ids=torch.frombuffer(packer.ids, dtype=torch.int32),
        positions=torch.cat(packer.positions),
        segments=packer.segments,
        last_tokens=torch.tensor(packer.last_tokens, dtype=torch.long),
        suffix_order=order,
        new_prefixes=packer.new_prefixes,
        max_length=max(segment.context + segment.length for segment in packer.segments),
    )


class _Packer:
    """Appends segments to a packed batch; attributes as in `Layout`."""

    def __init__(self) -> None:
        self.ids = array("i")
        self.positions: list[Tensor] = []
        self.segments: list[Segment] = []
        self.last_tokens: list[int] = []
        self.new_prefixes: list[CachedPrefix] = []

    def add_prefix(self, ids: array[int], cache: PrefixCache) -> CachedPrefix:
        prefix = cache.get(ids)
        if prefix is None:
            prefix, cached = cache.allocate(ids)
            self.new_prefixes.append(prefix)
            if cached < len(ids):
                rest = ids[cached:]
                self._append(Segment(prefix, cached, len(self.ids), 1, len(rest), True), [rest])
        return prefix

    def add_suffixes(self, prefix: CachedPrefix, suffixes: list[array[int]]) -> None:
        """Append one segment: suffixes of `prefix`, all of the same length."""
        segment = Segment(
            prefix, len(prefix), len(self.ids), len(suffixes), len(suffixes[0]), False
        )
        self._append(segment, suffixes)
        first_last = segment.start + segment.length - 1
        self.last_tokens.extend(range(first_last, segment.tokens.stop, segment.length))

    def _append(self, segment: Segment, sequences: list[array[int]]) -> None:
        self.segments.append(segment)
        for ids in sequences:
            self.ids.extend(ids)
        positions = torch.arange(segment.context, segment.context + segment.length)
        self.positions.append(positions.repeat(segment.count))
