"""Causal attention as matrix products, for bfloat16 on a CPU.

Torch's fused attention multiplies small blocks, at 50 to 70 GFLOP/s a core in bfloat16 (AMD EPYC
with AVX-512 BF16) and no faster than in float32; two batched products with a softmax between them
are faster.

Scores stay in float32, as in torch's: rounded to bfloat16, a score of 30 is wrong by up to .06, and
the weight of its token by 6 %. Torch's batched product has no float32 result for bfloat16 on CPUs,
so the first product is one of float32. It costs 15 to 30 % of the attention's time.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# Queries per block. A smaller block skips more of a long document's masked upper triangle.
_BLOCK = 128

# Scores of one product: 2 MB. With 8 MB the attention of short documents takes 1.6 times as long.
_MAX_SCORES = 2**19


def attend(queries: Tensor, keys: Tensor, values: Tensor, shared: int) -> Tensor:
    """Attention of sequences whose last query sees all keys, the one before all but the last, …

    Args:
        queries: scaled, [key-value heads of all sequences, length * shared, head_dim]; the
            `shared` query heads of a token are adjacent.
        keys, values: [key-value heads of all sequences, context + length, head_dim].
        shared: query heads that share a key-value head.

    Returns:
        As `queries`.
    """
    length = queries.shape[1] // shared
    context = keys.shape[1] - length
    outputs = torch.empty_like(queries)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        rows, visible = slice(start * shared, stop * shared), slice(context + stop)
        _attend_block(
            queries[:, rows], keys[:, visible], values[:, visible], outputs[:, rows], shared
        )
    return outputs


def _attend_block(
    queries: Tensor, keys: Tensor, values: Tensor, outputs: Tensor, shared: int
) -> None:
    """One block of queries; the last of them see all keys. Writes `outputs`."""
    rows, length = queries.shape[1], queries.shape[1] // shared
    heads = max(1, _MAX_SCORES // (rows * keys.shape[1]))
    mask = _mask(shared)[:rows, :length]
    for first in range(0, len(queries), heads):
        part = slice(first, first + heads)
        scores = torch.bmm(queries[part].float(), keys[part].float().transpose(1, 2))
        scores[:, :, -length:].add_(mask)
        torch.bmm(scores.softmax(dim=-1).to(values.dtype), values[part], out=outputs[part])


@lru_cache
def _mask(shared: int) -> Tensor:
    """Causal mask of a block, [_BLOCK * shared, _BLOCK]: -inf where a token must not see."""
    triangle = torch.full((_BLOCK, _BLOCK), float("-inf")).triu(1)
    return triangle.repeat_interleave(shared, dim=0)
