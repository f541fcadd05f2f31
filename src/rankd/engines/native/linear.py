"""The linear layers of the forward pass: rows times a matrix, without a bias.

In bfloat16 on a CPU the matrix is kept in the blocks that oneDNN multiplies. `torch.mm` makes these
blocks anew in every call, which costs 5 % of a product of 1,000 rows and half of one of 20.

In float32 it is not: there `torch.mm` calls MKL, while oneDNN generates code for each number of
rows, 2 MB for the five products of a layer, which made small models slower and workers larger.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


class Linear:
    """Multiplies rows by a matrix.

    Args:
        weight: [out, in], float32, bfloat16 or float16.
    """

    def __init__(self, weight: Tensor) -> None:
        self.dtype = weight.dtype
        self._packed = weight.device.type == "cpu" and _can_pack(weight.dtype)
        self._weight = _pack(weight) if self._packed else weight

    def __call__(self, rows: Tensor) -> Tensor:
        """`rows @ weight.T`, [rows, out], of [rows, in] in the dtype of the matrix."""
        return _multiply(rows, self._weight) if self._packed else F.linear(rows, self._weight)


# What torch.compile makes of a frozen nn.Linear. The operators are not public, hence `_can_pack`.


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return packed


def _multiply(rows: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product


@lru_cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether packing gains anything, and this build of torch has the operators.

    Asked by a small product with an exact result.
    """
    if dtype != torch.bfloat16:
        return False
    rows, weight = torch.eye(16, dtype=dtype)[:3], torch.arange(128.0).view(8, 16).to(dtype)
    try:
        return torch.equal(_multiply(rows, _pack(weight)), rows @ weight.t())
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
