"""Read safetensors files into the tensors of the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankd.engines.native.architecture import Architecture
from rankd.errors import BadModel
from rankd.types import AnswerTokenIds


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of one decoder layer; matrices are [out, in], as stored.

    Matrices that read the same input are joined along `out`.

    Attributes:
        norm: RMSNorm before attention, [hidden_size].
        qkv: [(heads + 2 * kv_heads) * head_dim, hidden_size].
        q_norm, k_norm: RMSNorm of each attention head, [head_dim], float32.
        out: [hidden_size, heads * head_dim].
        mlp_norm: RMSNorm before the MLP, [hidden_size].
        gate_up: [2 * mlp_size, hidden_size].
        down: [hidden_size, mlp_size].
    """

    norm: Tensor
    qkv: Tensor
    q_norm: Tensor
    k_norm: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights.

    Attributes:
        embedding: [vocab_size, hidden_size], in the dtype of the file. On CPU it is a view of
            the mapped file: only rows that are looked up take memory.
        norm: final RMSNorm, [hidden_size], float32.
        answer_rows: difference of the LM head's two answer rows, W[yes] - W[no], or W[yes]
            alone, or the row of a classifier; times the scale; [hidden_size], float32.
    """

    embedding: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    answer_rows: Tensor


def load(
    files: Sequence[Path],
    architecture: Architecture,
    answers: AnswerTokenIds,
    device: torch.device,
    dtype: torch.dtype,
    *,
    on_layer: Callable[[int, int], None] = lambda *_: None,
) -> Weights:
    """Read each tensor once, straight into the memory where it is used.

    Args:
        dtype: of the layers' matrices; norms of heads and the final norm are float32.
        on_layer: called after each layer with the layers read so far and their total.

    Raises:
        BadModel: a file cannot be read, or a tensor is missing, quantised or of another
            shape than config.json says.
    """
    # Mapped separately, so that the pages of copied tensors are freed with `files_to_copy`.
    embedding_files, files_to_copy = (_TensorFiles(files, device, dtype) for _ in range(2))
    embedding_shape = (architecture.vocab_size, architecture.hidden_size)
    return Weights(
        embedding=embedding_files.read("model.embed_tokens.weight", embedding_shape).to(device),
        layers=list(_layers(files_to_copy, architecture, on_layer)),
        norm=files_to_copy.join(["model.norm.weight"], (architecture.hidden_size,)).float(),
        answer_rows=_answer_rows(files_to_copy, architecture, answers).to(device),
    )


def _layers(
    files: _TensorFiles, architecture: Architecture, on_layer: Callable[[int, int], None]
) -> Iterator[LayerWeights]:
    for index in range(architecture.layers):
        yield _layer(files, f"model.layers.{index}.", architecture)
        on_layer(index + 1, architecture.layers)


def _layer(files: _TensorFiles, layer: str, arch: Architecture) -> LayerWeights:
    """Read one layer; `layer` is the start of its tensor names, such as `model.layers.0.`."""
    hidden_size, head_dim = arch.hidden_size, arch.head_dim
    query_size, key_size = arch.heads * head_dim, arch.kv_heads * head_dim
    attention, mlp = layer + "self_attn.", layer + "mlp."
    return LayerWeights(
        norm=files.join([layer + "input_layernorm.weight"], (hidden_size,)),
        qkv=files.join(
            [attention + f"{name}_proj.weight" for name in "qkv"],
            (query_size, hidden_size),
            (key_size, hidden_size),
            (key_size, hidden_size),
        ),
        q_norm=files.join([attention + "q_norm.weight"], (head_dim,)).float(),
        k_norm=files.join([attention + "k_norm.weight"], (head_dim,)).float(),
        out=files.join([attention + "o_proj.weight"], (hidden_size, query_size)),
        mlp_norm=files.join([layer + "post_attention_layernorm.weight"], (hidden_size,)),
        gate_up=files.join(
            [mlp + "gate_proj.weight", mlp + "up_proj.weight"],
            (arch.mlp_size, hidden_size),
            (arch.mlp_size, hidden_size),
        ),
        down=files.join([mlp + "down_proj.weight"], (hidden_size, arch.mlp_size)),
    )


def _answer_rows(files: _TensorFiles, arch: Architecture, answers: AnswerTokenIds) -> Tensor:
    """[hidden_size], float32; see `Weights.answer_rows`."""
    if arch.classifier:
        return files.read("score.weight", (1, arch.hidden_size))[0].float() * answers.scale
    for token_id in (answers.yes, answers.no):
        if token_id is not None and not 0 <= token_id < arch.vocab_size:
            raise BadModel(
                f"token {token_id} is outside the model's vocabulary of {arch.vocab_size}; "
                "the tokenizer and the weights belong to different models"
            )
    name = "model.embed_tokens.weight" if _is_tied(files, arch) else "lm_head.weight"
    rows = files.read(name, (arch.vocab_size, arch.hidden_size))
    row = rows[answers.yes].float()
    if answers.no is not None:
        row = row - rows[answers.no].float()
    return row * answers.scale


def _is_tied(files: _TensorFiles, arch: Architecture) -> bool:
    # Like transformers: the lm_head.weight of a tied model is ignored.
    return "lm_head.weight" not in files if arch.tied is None else arch.tied


class _TensorFiles:
    """Tensors by name, over all files of a checkpoint."""

    def __init__(self, files: Sequence[Path], device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._file_of: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="pt")
            except (OSError, SafetensorError) as problem:
                raise BadModel(f"cannot read {file}: {problem}") from None
            self._file_of |= dict.fromkeys(opened.keys(), opened)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor as stored: a view of the mapped file, read from disk on use."""
        if name not in self._file_of:
            raise BadModel(f"the weights lack {name}")
        tensor: Tensor = self._file_of[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise BadModel(f"{name} is {list(tensor.shape)}; config.json says {list(shape)}")
        if not tensor.is_floating_point():
            raise BadModel(f"{name} holds {tensor.dtype}; rankd reads float32, bfloat16, float16")
        return tensor

    def join(self, names: Sequence[str], *shapes: tuple[int, ...]) -> Tensor:
        """Concatenate tensors along their first dimension, copied to the device and dtype."""
        rows = sum(shape[0] for shape in shapes)
        joined = torch.empty((rows, *shapes[0][1:]), dtype=self._dtype, device=self._device)
        start = 0
        for name, shape in zip(names, shapes, strict=True):
            joined[start : start + shape[0]].copy_(self.read(name, shape))
            start += shape[0]
        return joined
