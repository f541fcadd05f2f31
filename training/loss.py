"""What training lowers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_of(scores: Tensor, share: float = 0.6) -> Tensor:
    """The right document (the first) before the others, and each on its own side of one half.

    `share` is the weight of a right document against all wrong ones of its question.
    """
    listwise = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    right = torch.zeros_like(scores)
    right[:, 0] = 1
    weight = torch.where(right > 0, (scores.shape[1] - 1) * share, 1.0)
    each = F.binary_cross_entropy_with_logits(scores, right * 0.96 + 0.01, reduction="none")
    return listwise + (each * weight).sum() / weight.sum()
