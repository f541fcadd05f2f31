"""Attention as matrix products against torch's own, in float32."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rankd.engines.native import product_attention

KV_HEADS, SHARED, HEAD_DIM = 2, 3, 16


def random(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(KV_HEADS, rows, HEAD_DIM, generator=generator)


@pytest.mark.parametrize("max_scores", [1, 50_000, 2**22], ids=["one head", "some", "all heads"])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("context", [0, 1, 67])
def test_each_token_sees_its_context_and_the_tokens_up_to_itself(
    context: int, length: int, max_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_attention, "_MAX_SCORES", max_scores)
    queries = random(length * SHARED, seed=1)
    keys, values = (random(context + length, seed=seed) for seed in (2, 3))

    found = product_attention.attend(queries * HEAD_DIM**-0.5, keys, values, SHARED)

    by_head = queries.view(KV_HEADS, length, SHARED, HEAD_DIM).transpose(1, 2)
    visible = torch.ones(length, context + length).tril(context).bool()
    expected = F.scaled_dot_product_attention(
        by_head,
        keys[:, None].expand(-1, SHARED, -1, -1),
        values[:, None].expand(-1, SHARED, -1, -1),
        attn_mask=visible,
    )
    torch.testing.assert_close(
        found.view(KV_HEADS, length, SHARED, HEAD_DIM), expected.transpose(1, 2)
    )


def test_scores_are_not_rounded_to_bfloat16() -> None:
    """Large scores that differ by less than bfloat16 can tell apart."""
    chance = torch.Generator().manual_seed(4)
    keys = torch.randn(KV_HEADS, 40, HEAD_DIM, generator=chance) * 0.02 + 1
    values = torch.randn(KV_HEADS, 40, HEAD_DIM, generator=chance)
    queries = torch.full((KV_HEADS, SHARED, HEAD_DIM), 4.0)
    q, k, v = queries.bfloat16(), keys.bfloat16(), values.bfloat16()

    found = product_attention.attend(q, k, v, SHARED)

    exact = product_attention.attend(q.float(), k.float(), v.float(), SHARED)
    torch.testing.assert_close(found.float(), exact, atol=0.004, rtol=0.01)
