"""Frequencies of the rotary embedding, to the bit as transformers 5 computes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankd.models.rope import RopeScaling


def frequencies(rope: RopeScaling, head_dim: int) -> tuple[Tensor, float]:
    """Angle per position of each pair of dimensions, and the factor of cosine and sine.

    Returns:
        Radians per token, [head_dim / 2], float32; a factor, 1.0 but for YaRN.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    periods = rope.theta**exponents
    if rope.type == "yarn":
        return _yarn(rope, periods, head_dim), _yarn_attention_factor(rope)
    plain = 1.0 / periods
    if rope.type == "linear":
        return plain / rope.options["factor"], 1.0
    if rope.type == "llama3":
        return _llama3(rope, plain), 1.0
    # The type `dynamic` changes nothing up to max_position_embeddings, which is the limit here.
    return plain, 1.0


def _factor(rope: RopeScaling) -> float:
    factor = rope.options["factor"]
    return float(rope.max_tokens / rope.original_max_tokens if factor is None else factor)


def _yarn(rope: RopeScaling, periods: Tensor, head_dim: int) -> Tensor:
    """Fast dimensions keep their frequency, slow ones are divided by the factor.

    Between the two, from `low` to `high`, the frequencies are mixed linearly.
    """
    low, high = (
        head_dim
        * math.log(rope.original_max_tokens / (rotations * 2 * math.pi))
        / (2 * math.log(rope.theta))
        for rotations in (
            rope.options.get("beta_fast") or 32,
            rope.options.get("beta_slow") or 1,
        )
    )
    if rope.options.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)
    kept = 1 - ramp.clamp(0, 1)
    return 1.0 / (_factor(rope) * periods) * (1 - kept) + 1.0 / periods * kept


def _yarn_attention_factor(rope: RopeScaling) -> float:
    options = rope.options
    given = options.get("attention_factor")
    if given is not None:
        return float(given)
    factor, mscale, all_dim = _factor(rope), options.get("mscale"), options.get("mscale_all_dim")
    if mscale and all_dim:
        return _mscale(factor, mscale) / _mscale(factor, all_dim)
    return _mscale(factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _llama3(rope: RopeScaling, plain: Tensor) -> Tensor:
    """Long waves are divided by the factor, short ones kept, those between mixed."""
    options, original = rope.options, rope.original_max_tokens
    factor, low, high = (
        options[name] for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    waves = 2 * math.pi / plain
    scaled = torch.where(waves > original / low, plain / factor, plain)
    smooth = (original / waves - low) / (high - low)
    mixed = (1 - smooth) * scaled / factor + smooth * scaled
    between = (waves >= original / high) & (waves <= original / low)
    return torch.where(between, mixed, scaled)
