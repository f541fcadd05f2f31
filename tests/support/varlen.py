"""A plain implementation of torch.nn.attention.varlen.varlen_attn, which runs on GPUs only.

Written from its documentation (PyTorch 2.11 to 2.14) and from what flash attention demands of its
arguments: one sequence, one head, one query at a time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """Attention of N packed sequences.

    A window of (-1, 0) is causal; (-1, -1) lets every query see all keys of its sequence.
    The last query has the position of the last key.
    """
    _check(query, key, value, cu_seq_q, cu_seq_k)
    assert window_size in ((-1, 0), (-1, -1))
    output = torch.full_like(query, float("nan"))
    query_spans = list(pairwise(cu_seq_q.tolist()))
    key_spans = list(pairwise(cu_seq_k.tolist()))
    assert max_q == max(stop - start for start, stop in query_spans)
    assert max_k == max(stop - start for start, stop in key_spans)
    shared = query.shape[1] // key.shape[1]
    for (query_start, query_stop), (key_start, key_stop) in zip(
        query_spans, key_spans, strict=True
    ):
        for head in range(query.shape[1]):
            keys = key[key_start:key_stop, head // shared]
            values = value[key_start:key_stop, head // shared]
            for index in range(query_start, query_stop):
                hidden = query_stop - 1 - index if window_size == (-1, 0) else 0
                visible = len(keys) - hidden
                similar = (keys[:visible] @ query[index, head]) * query.shape[2] ** -0.5
                output[index, head] = torch.softmax(similar, 0) @ values[:visible]
    return output


def _check(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor) -> None:
    """What flash attention refuses, and what would make it read beyond its arguments."""
    assert query.dim() == key.dim() == value.dim() == 3
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert query.dtype == key.dtype == value.dtype
    assert key.shape == value.shape
    assert query.shape[2] == key.shape[2]
    assert query.shape[1] % key.shape[1] == 0
    for ends, rows in ((cu_seq_q, query), (cu_seq_k, key)):
        assert ends.dtype == torch.int32
        assert ends.is_contiguous()
        assert ends[0] == 0
        assert ends[-1] == len(rows)
        assert (ends.diff() > 0).all()
    assert len(cu_seq_q) == len(cu_seq_k)
