"""Attention of a packed batch in one call for all its prompts, on CUDA devices.

The CPU takes one call for each segment (`model`). On a GPU each of them would be a small kernel,
and a batch of documents has as many segments as lengths. Variable-length flash attention takes
all sequences at once: their queries and keys packed one after the other, and where each sequence
ends. Its causal mask is aligned at the end of a sequence: the last query sees all keys.

Not run on a GPU. Tests on a CPU put a plain implementation of torch's documented function in its
place (`tests/support/varlen.py`), so they cover everything but the call itself. Before it is used,
`find_varlen_attention` compares the device's results with those of plain attention.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rankd.engines.native.architecture import Architecture
from rankd.engines.native.layout import Layout, Segment

_log = logging.getLogger("rankd")

# What flash attention computes (PyTorch 2.11 to 2.14: flash_attn/flash_api.cpp).
_DTYPES = (torch.float16, torch.bfloat16)
_MAX_HEAD_DIM = 256

# (left, right) of a query: every key up to its own position, and every key of its sequence.
_CAUSAL, _ALL = (-1, 0), (-1, -1)

# Keys of one call. Each sequence gets a copy of its prefix's keys and values, so a long prefix
# with many documents is split over several calls: 2^17 keys of Qwen3-Reranker take 512 MB.
_KEYS_PER_CALL = 2**17

# Difference from plain attention that rounding can explain. A wrong mask makes some of order 1.
_TOLERANCE = 0.05


class VarlenAttention(Protocol):
    """torch.nn.attention.varlen.varlen_attn, as far as it is used."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        window_size: tuple[int, int],
    ) -> Tensor:
        """Attention of N sequences; query heads share key-value heads evenly.

        Args:
            query: [queries of all sequences, heads, head_dim].
            key, value: [keys of all sequences, kv_heads, head_dim].
            cu_seq_q, cu_seq_k: where each sequence ends, after a 0, [N + 1], int32.
            max_q, max_k: queries and keys of the longest sequence.
            window_size: keys before and after its own position that a query sees, where the
                last query has the position of the last key; -1: all.

        Returns:
            As `query`.
        """


def find_varlen_attention(
    device: torch.device, dtype: torch.dtype, architecture: Architecture
) -> VarlenAttention | None:
    """Torch's variable-length attention; None where attention has to go segment by segment.

    None on a CPU or NPU, for float32, before PyTorch 2.11, for a head_dim that flash attention
    lacks, and on a device that cannot compute it (before Ampere) or differs from plain attention.
    """
    head_dim = architecture.head_dim
    if device.type != "cuda" or dtype not in _DTYPES or head_dim % 8 or head_dim > _MAX_HEAD_DIM:
        return None
    varlen = _torch_function()
    if varlen is None or (problem := _difference(varlen, device, dtype, architecture)) is None:
        return varlen
    _log.warning("variable-length attention is not used on %s: %s", device, problem)
    return None


def _torch_function() -> VarlenAttention | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    parameters = inspect.signature(varlen_attn).parameters
    if "window_size" not in parameters:  # PyTorch 2.10
        return None
    # From 2.12 on, fewer key-value heads than query heads have to be allowed.
    function: Any = varlen_attn
    return partial(function, enable_gqa=True) if "enable_gqa" in parameters else function


@torch.inference_mode()
def _difference(
    varlen: VarlenAttention, device: torch.device, dtype: torch.dtype, architecture: Architecture
) -> str | None:
    """What is wrong with the results of `varlen` on the device; None if nothing."""
    arch = architecture
    query_counts, key_counts = [3, 1, 130, 2], [70, 1, 130, 300]
    generator = torch.Generator().manual_seed(0)

    def random(count: int, heads: int) -> Tensor:
        noise = torch.randn(count, heads, arch.head_dim, generator=generator)
        return noise.to(device, dtype)

    query = random(sum(query_counts), arch.heads)
    key, value = (random(sum(key_counts), arch.kv_heads) for _ in range(2))
    query_ends, key_ends = _ends(query_counts, device), _ends(key_counts, device)
    try:
        found = varlen(query, key, value, query_ends, key_ends, 130, 300, window_size=_CAUSAL)
    except RuntimeError as problem:
        return next(iter(str(problem).splitlines()), repr(problem))
    plain = [
        _plain_attention(*sequence)
        for sequence in zip(
            query.split(query_counts), key.split(key_counts), value.split(key_counts), strict=True
        )
    ]
    apart = (found.float() - torch.cat(plain)).abs().max().item()
    # Not `apart > …`: NaN is not.
    return None if apart <= _TOLERANCE else f"it differs from plain attention by {apart:.2g}"


def _plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one sequence in float32; the last query sees all keys.

    Args:
        query: [queries, heads, head_dim].
        key, value: [keys, kv_heads, head_dim].
    """
    shared = query.shape[1] // key.shape[1]
    queries = query.float().transpose(0, 1)
    keys, values = (
        part.float().transpose(0, 1).repeat_interleave(shared, dim=0) for part in (key, value)
    )
    mask = torch.ones(len(query), len(key), dtype=torch.bool, device=query.device)
    visible = mask.tril(len(key) - len(query))
    output = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
    return output.transpose(0, 1)


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Cumulative lengths after a 0, [lengths + 1], int32."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device)


@dataclass(frozen=True, slots=True)
class VarlenCall:
    """Arguments of one call, for adjacent sequences of a packed batch.

    Attributes:
        queries: the sequences' tokens; in the last layer, their last tokens.
        key_rows: row in the pool (`PackedAttention`) of each key, [keys], int32.
        query_ends, key_ends: cumulative lengths after a 0, [sequences + 1], int32.
        max_queries, max_keys: of the longest sequence.
    """

    queries: slice
    key_rows: Tensor
    query_ends: Tensor
    key_ends: Tensor
    max_queries: int
    max_keys: int


class PackedAttention:
    """Attention of one packed batch.

    In each layer, the keys of all prefixes and the packed tokens make up a pool, from which every
    sequence's keys are copied in order: its prefix, then its own. The same for values.
    """

    def __init__(self, varlen: VarlenAttention, layout: Layout, device: torch.device) -> None:
        self._varlen = varlen
        self._prefixes = list({id(one.prefix): one.prefix for one in layout.segments}.values())
        self._new = [segment for segment in layout.segments if segment.extends_prefix]
        first_rows = [0, *accumulate(map(len, self._prefixes))]
        starts = {id(prefix): row for prefix, row in zip(self._prefixes, first_rows, strict=False)}
        sequences = [
            _Sequences(segment, starts[id(segment.prefix)], first_rows[-1])
            for segment in layout.segments
        ]
        suffixes = [one for one in sequences if not one.segment.extends_prefix]
        self.calls = list(_calls(sequences, device, last_tokens=False))
        self.last_calls = list(_calls(suffixes, device, last_tokens=True))

    def attend(self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of all tokens; a token sees its prefix and its sequence up to itself.

        The keys and values of new prefixes are written into them.

        Args:
            queries: [tokens, heads, head_dim].
            keys, values: of all tokens, [tokens, kv_heads, head_dim].

        Returns:
            [tokens, heads * head_dim].
        """
        pools = self._pools(layer_index, keys, values)
        return self._run(self.calls, queries, pools, _CAUSAL)

    def attend_last(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attention of each suffix's last token, which sees its whole prompt; as `attend`.

        Args:
            queries: of the last tokens, [suffixes, heads, head_dim].

        Returns:
            [suffixes, heads * head_dim].
        """
        pools = self._pools(layer_index, keys, values)
        if not self.last_calls:  # A batch of prefixes only.
            return queries.flatten(1)
        return self._run(self.last_calls, queries, pools, _ALL)

    def _pools(self, layer_index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefixes, then of all tokens, [rows, kv_heads, head_dim] each."""
        for segment in self._new:
            prefix, tokens = segment.prefix, segment.tokens
            prefix.keys[layer_index, :, segment.context :] = keys[tokens].transpose(0, 1)
            prefix.values[layer_index, :, segment.context :] = values[tokens].transpose(0, 1)
        prefix_keys = [prefix.keys[layer_index].transpose(0, 1) for prefix in self._prefixes]
        prefix_values = [prefix.values[layer_index].transpose(0, 1) for prefix in self._prefixes]
        return torch.cat([*prefix_keys, keys]), torch.cat([*prefix_values, values])

    def _run(
        self,
        calls: Sequence[VarlenCall],
        queries: Tensor,
        pools: tuple[Tensor, Tensor],
        window: tuple[int, int],
    ) -> Tensor:
        keys, values = pools
        outputs = [
            self._varlen(
                queries[call.queries],
                keys.index_select(0, call.key_rows),
                values.index_select(0, call.key_rows),
                call.query_ends,
                call.key_ends,
                call.max_queries,
                call.max_keys,
                window_size=window,
            )
            for call in calls
        ]
        attended = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return attended.flatten(1)


@dataclass(frozen=True, slots=True)
class _Sequences:
    """The sequences of a segment in the pool.

    Attributes:
        prefix_row: row of the prefix's first token.
        packed_row: row of the packed batch's first token.
    """

    segment: Segment
    prefix_row: int
    packed_row: int

    @property
    def keys(self) -> int:
        """Keys of each sequence."""
        return self.segment.context + self.segment.length

    def key_rows(self, start: int, stop: int) -> Tensor:
        """Rows of the keys of sequences `start` to `stop`, [(stop - start) * keys], int32."""
        length, count = self.segment.length, stop - start
        prefix = torch.arange(
            self.prefix_row, self.prefix_row + self.segment.context, dtype=torch.int32
        )
        first = self.packed_row + self.segment.start + start * length
        own = torch.arange(first, first + count * length, dtype=torch.int32)
        return torch.cat([prefix.expand(count, -1), own.view(count, length)], dim=1).flatten()


@dataclass(slots=True)
class _Group:
    """Parts of segments that one call takes: (sequences, start, stop)."""

    parts: list[tuple[_Sequences, int, int]]
    keys: int = 0

    def room_for(self, sequences: _Sequences) -> int:
        """How many more of these fit; a first one always does."""
        return max((_KEYS_PER_CALL - self.keys) // sequences.keys, 0 if self.parts else 1)


def _groups(all_sequences: Sequence[_Sequences]) -> Iterator[_Group]:
    """Split the sequences, in order, so that no group has more keys than a call may have."""
    group = _Group([])
    for sequences in all_sequences:
        start = 0
        while start < sequences.segment.count:
            room = group.room_for(sequences)
            if not room:
                yield group
                group = _Group([])
                continue
            stop = min(start + room, sequences.segment.count)
            group.parts.append((sequences, start, stop))
            group.keys += (stop - start) * sequences.keys
            start = stop
    if group.parts:
        yield group


def _calls(
    all_sequences: Sequence[_Sequences], device: torch.device, *, last_tokens: bool
) -> Iterator[VarlenCall]:
    """The calls for these sequences, whose queries are packed in the same order."""
    first_query = 0
    for group in _groups(all_sequences):
        query_lengths, key_lengths, rows = [], [], []
        for sequences, start, stop in group.parts:
            length = 1 if last_tokens else sequences.segment.length
            query_lengths += [length] * (stop - start)
            key_lengths += [sequences.keys] * (stop - start)
            rows.append(sequences.key_rows(start, stop))
        queries = slice(first_query, first_query + sum(query_lengths))
        first_query = queries.stop
        yield VarlenCall(
            queries=queries,
            key_rows=torch.cat(rows).to(device),
            query_ends=_ends(query_lengths, device),
            key_ends=_ends(key_lengths, device),
            max_queries=max(query_lengths),
            max_keys=max(key_lengths),
        )
