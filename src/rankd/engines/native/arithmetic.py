"""Chooses the number format of the matrix products.

bfloat16 halves the time of products and the memory of weights, but only on processors with
instructions for it; emulated, it takes several times as long as float32.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from rankd.engines.native.architecture import Architecture

# Products of smaller models take less time than the rest of the forward pass. Unit: parameters
# of all layers; the built-in model has 1.4 million, Qwen3-Reranker-0.6B 440 million.
_MIN_PARAMETERS = 50_000_000

# How many times faster the product must be in bfloat16 to be chosen.
_MIN_SPEEDUP = 1.2

# Rows of the timed product: enough to be limited by arithmetic, not by memory.
_ROWS = 128
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The dtype of weights and matrix products.

    Everything else is computed in float32: the residual stream, norms, rotation and logits.

    Attributes:
        reason: why it was chosen, for people.
    """

    dtype: torch.dtype
    reason: str


def choose(
    setting: str, device: torch.device, stored: torch.dtype, architecture: Architecture
) -> NumberFormat:
    """The number format for the setting `dtype`.

    Args:
        setting: `auto`, or the name of a dtype.
        stored: dtype of the checkpoint's weights.
    """
    if setting != "auto":
        return NumberFormat(getattr(torch, setting), "set by dtype")
    if device.type != "cpu":
        return NumberFormat(torch.bfloat16, f"default on {device.type}")
    if stored == torch.float32:
        return NumberFormat(torch.float32, "the weights are stored in float32")
    if parameters(architecture) < _MIN_PARAMETERS:
        return NumberFormat(torch.float32, "small model")
    if not has_bfloat16_instructions():
        return NumberFormat(torch.float32, "the processor has no bfloat16 instructions")
    speedup = _speedup(architecture)
    measured = f"measured {speedup:.1f} times as fast as float32"
    if speedup < _MIN_SPEEDUP:
        return NumberFormat(torch.float32, f"bfloat16 {measured}")
    return NumberFormat(torch.bfloat16, measured)


def has_bfloat16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 itself: AVX-512 BF16, AMX, or Arm's BF16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _multiplies_bfloat16()


def _multiplies_bfloat16() -> bool:
    # oneDNN also takes bfloat16 where it converts to float32 (AVX-512 without BF16).
    names = ("avx512_bf16", "amx_bf16", "bf16")
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return any(capabilities.get(name) for name in names)
    return any(
        bool(getattr(torch.cpu, function, bool)())
        for function in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def parameters(architecture: Architecture) -> int:
    """Number of parameters in the matrices of all layers."""
    arch = architecture
    attention = 2 * (arch.heads + arch.kv_heads) * arch.head_dim
    return arch.layers * arch.hidden_size * (attention + 3 * arch.mlp_size)


def _speedup(architecture: Architecture) -> float:
    """Time of an MLP's product in float32, divided by its time in bfloat16.

    The fastest of some rounds each, so that other work on the machine has little effect.
    """
    shape = (architecture.mlp_size, architecture.hidden_size)
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.ones(shape, dtype=dtype)
        rows = torch.ones((_ROWS, architecture.hidden_size), dtype=dtype)
        output = torch.empty((_ROWS, architecture.mlp_size), dtype=dtype)
        seconds.append(min(_time(rows, weight, output) for _ in range(_ROUNDS)))
    return seconds[0] / seconds[1]


def _time(rows: torch.Tensor, weight: torch.Tensor, output: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(rows, weight.t(), out=output)
    return time.perf_counter() - began
