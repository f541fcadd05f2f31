"""Chooses the number format of the matrix products, and names what logits depend on."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from rankd.engines.devices import bfloat16_instructions
from rankd.engines.native.architecture import Architecture
from rankd.engines.native.linear import Linear
from rankd.engines.number_format import NumberFormat, on_cpu, set_by
from rankd.models.tensor_files import StoredTensor

# How many times faster the product must be in bfloat16 to be chosen.
_MIN_SPEEDUP = 1.2

# Rows of the timed product: enough to be limited by arithmetic, not by memory.
_ROWS = 128
_ROUNDS = 5


def choose(
    setting: str,
    device: torch.device,
    tensors: Mapping[str, StoredTensor],
    architecture: Architecture,
) -> NumberFormat:
    """The number format of weights and products for the setting `dtype`.

    Everything else is computed in float32: the residual stream, norms, rotation and logits.

    Args:
        setting: `auto`, or the name of a dtype.
        tensors: of the checkpoint, by name.
    """
    if setting != "auto":
        return set_by(setting)
    if device.type != "cpu":
        return NumberFormat("bfloat16", f"default on {device.type}")
    chosen = on_cpu(tensors)
    if chosen.dtype == "float32":
        return chosen
    speedup = _speedup(architecture)
    measured = f"measured {speedup:.1f} times as fast as float32"
    if speedup < _MIN_SPEEDUP:
        return NumberFormat("float32", f"bfloat16 {measured}")
    return NumberFormat("bfloat16", measured)


def describe(dtype: str) -> str:
    """What the last bits of a logit depend on, beside the model.

    The number of threads changes how matrix products are divided; the instruction set changes
    the order of sums.
    """
    threads = torch.get_num_threads()
    instructions = bfloat16_instructions() if dtype == "bfloat16" else None
    return ", ".join(
        [
            f"torch {torch.__version__}",
            torch.backends.cpu.get_cpu_capability(),
            f"{dtype} products" + (f" by {instructions}" if instructions else ""),
            f"{threads} {'thread' if threads == 1 else 'threads'}",
        ]
    )


def _speedup(architecture: Architecture) -> float:
    """CPU time of an MLP's product in float32, divided by that in bfloat16.

    CPU time, and the fastest of some rounds each, so that other work on the machine has little
    effect: by the clock, a machine with 30 waiting processes measured 11 instead of 2.
    """
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        linear = Linear(torch.ones((architecture.mlp_size, architecture.hidden_size), dtype=dtype))
        rows = torch.ones((_ROWS, architecture.hidden_size), dtype=dtype)
        seconds.append(min(_time(linear, rows) for _ in range(_ROUNDS)))
    return seconds[0] / seconds[1]


def _time(linear: Linear, rows: torch.Tensor) -> float:
    began = time.process_time()
    linear(rows)
    return time.process_time() - began
