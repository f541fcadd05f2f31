"""Muon in float32: momentum whose matrices are made orthogonal, https://kellerjordan.github.io/posts/muon/.

torch.optim.Muon computes in bfloat16, which is slow on a CPU and coarse for matrices this small.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                step = orthogonal(weight.grad.lerp(average, group["momentum"]))
                weight.add_(
                    step, alpha=-group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
                )


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by five Newton-Schulz rounds."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
