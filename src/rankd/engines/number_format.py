"""The rule of `dtype = auto` on a CPU, for every engine. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rankd.engines.devices import bfloat16_instructions
from rankd.models.tensor_files import StoredTensor

# In smaller models, matrix products take less time than the rest of the forward pass. Unit:
# parameters of all layers; the built-in model has 1.4 million, Qwen3-Reranker-0.6B 440 million.
_MIN_PARAMETERS = 50_000_000

_LAYERS = "model.layers."


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The dtype of weights and matrix products.

    Attributes:
        dtype: as torch names it, such as `bfloat16`.
        reason: why it was chosen, for people; empty if the library chose it.
    """

    dtype: str
    reason: str


def set_by(setting: str) -> NumberFormat:
    """The format for a setting other than `auto`."""
    return NumberFormat(setting, "set by dtype")


def on_cpu(tensors: Mapping[str, StoredTensor]) -> NumberFormat:
    """bfloat16 where the processor multiplies it itself, else float32.

    bfloat16 halves the time of products and the memory of weights, but only with instructions
    for it: emulated, it takes several times as long as float32. Weights that are stored in
    float32 and small models stay in float32.

    Args:
        tensors: of the checkpoint, by name.
    """
    matrices = [
        tensor
        for name, tensor in tensors.items()
        if name.startswith(_LAYERS) and len(tensor.shape) == 2
    ]
    if not {tensor.dtype for tensor in matrices} <= {"BF16", "F16"}:
        return NumberFormat("float32", "the weights are stored in float32")
    if sum(math.prod(tensor.shape) for tensor in matrices) < _MIN_PARAMETERS:
        return NumberFormat("float32", "small model")
    instructions = bfloat16_instructions()
    if instructions is None:
        return NumberFormat("float32", "the processor has no bfloat16 instructions")
    return NumberFormat("bfloat16", f"the processor has {instructions}")
