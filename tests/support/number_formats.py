"""Headers of checkpoints in the shape of Qwen3-Reranker, without their weights."""

from __future__ import annotations

from pathlib import Path

from rankd.models.tensor_files import StoredTensor

LAYER = "model.layers.{}.mlp.gate_proj.weight"


def stored(dtype: str, layers: int = 28) -> dict[str, StoredTensor]:
    """Tensors of 3.1 million parameters a layer, besides norms and an embedding in float32."""
    matrix = StoredTensor(Path("model.safetensors"), dtype, (3072, 1024), 0, 0)
    norm = StoredTensor(Path("model.safetensors"), "F32", (1024,), 0, 0)
    embedding = StoredTensor(Path("model.safetensors"), "F32", (151_669, 1024), 0, 0)
    tensors = {LAYER.format(index): matrix for index in range(layers)}
    norms = {f"model.layers.{index}.input_layernorm.weight": norm for index in range(layers)}
    return {"model.embed_tokens.weight": embedding, **tensors, **norms}
