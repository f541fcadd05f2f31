"""Read safetensors files into the tensors of the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rankd.engines.native.architecture import Architecture
from rankd.engines.native.linear import Linear
from rankd.engines.native.tensors import TensorFiles
from rankd.errors import BadModel
from rankd.models.adapter import LoraAdapter
from rankd.models.weight_checks import EMBEDDING, LM_HEAD, SCORE
from rankd.types import AnswerTokenIds


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of one decoder layer; the matrices of linear layers are [out, in].

    Attributes:
        norm: RMSNorm before attention, [hidden_size], float32.
        queries: [heads * head_dim, hidden_size].
        keys_values: joined along `out`, [2 * kv_heads * head_dim, hidden_size].
        q_norm, k_norm: RMSNorm of each attention head, [head_dim], float32.
        out: [hidden_size, heads * head_dim].
        mlp_norm: RMSNorm before the MLP, [hidden_size], float32.
        gate_up: joined along `out`, [2 * mlp_size, hidden_size].
        down: [hidden_size, mlp_size].
    """

    norm: Tensor
    queries: Linear
    keys_values: Linear
    q_norm: Tensor
    k_norm: Tensor
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights.

    Attributes:
        embedding: [vocab_size, hidden_size], in the dtype of the file. On CPU it is a view of
            the mapped file: only rows that are looked up take memory.
        norm: final RMSNorm, [hidden_size], float32.
        answer_rows: difference of the LM head's two answer rows, W[yes] - W[no], or W[yes]
            alone, or the row of a classifier (of two rows, their difference); times the scale;
            [hidden_size], float32.
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
    adapter: LoraAdapter | None = None,
    *,
    on_layer: Callable[[int, int], None] = lambda *_: None,
) -> Weights:
    """Read each tensor once, straight into the memory where it is used.

    Args:
        dtype: of the layers' matrices; norms are float32.
        adapter: merged into the weights, in float32.
        on_layer: called after each layer with the layers read so far and their total.

    Raises:
        BadModel: a file cannot be read; a tensor is missing, quantized, of another shape than
            config.json says, or holds NaN; or there are tensors that the model has no place for.
    """
    # Mapped separately, so that the pages of other tensors are freed with `others`.
    embedding, others = (TensorFiles(files, device, dtype, adapter) for _ in range(2))
    embedding_shape = (architecture.vocab_size, architecture.hidden_size)
    others.read(EMBEDDING, embedding_shape)  # Checks the values.
    weights = Weights(
        embedding=embedding.view(EMBEDDING, embedding_shape).to(device),
        layers=list(_layers(others, architecture, on_layer)),
        norm=others.join(["model.norm.weight"], (architecture.hidden_size,)).float(),
        answer_rows=_answer_rows(others, architecture, answers).to(device),
    )
    others.refuse_unread()
    return weights


def _layers(
    files: TensorFiles, architecture: Architecture, on_layer: Callable[[int, int], None]
) -> Iterator[LayerWeights]:
    for index in range(architecture.layers):
        yield _layer(files, f"model.layers.{index}.", architecture)
        on_layer(index + 1, architecture.layers)


def _layer(files: TensorFiles, layer: str, arch: Architecture) -> LayerWeights:
    """Read one layer; `layer` is the start of its tensor names, such as `model.layers.0.`."""
    hidden_size, head_dim = arch.hidden_size, arch.head_dim
    query_size, key_size = arch.heads * head_dim, arch.kv_heads * head_dim
    attention, mlp = layer + "self_attn.", layer + "mlp."

    def norm(name: str, size: int) -> Tensor:
        return files.join([name], (size,)).float()

    def linear(names: Sequence[str], *shapes: tuple[int, int]) -> Linear:
        return Linear(files.join([f"{name}_proj.weight" for name in names], *shapes))

    return LayerWeights(
        norm=norm(layer + "input_layernorm.weight", hidden_size),
        queries=linear([attention + "q"], (query_size, hidden_size)),
        keys_values=linear(
            [attention + "k", attention + "v"], (key_size, hidden_size), (key_size, hidden_size)
        ),
        q_norm=norm(attention + "q_norm.weight", head_dim),
        k_norm=norm(attention + "k_norm.weight", head_dim),
        out=linear([attention + "o"], (hidden_size, query_size)),
        mlp_norm=norm(layer + "post_attention_layernorm.weight", hidden_size),
        gate_up=linear(
            [mlp + "gate", mlp + "up"], (arch.mlp_size, hidden_size), (arch.mlp_size, hidden_size)
        ),
        down=linear([mlp + "down"], (hidden_size, arch.mlp_size)),
    )


def _answer_rows(files: TensorFiles, arch: Architecture, answers: AnswerTokenIds) -> Tensor:
    """[hidden_size], float32; see `Weights.answer_rows`."""
    if arch.classifier:
        return _label_rows(files, arch) * answers.scale
    tokens = [token_id for token_id in (answers.yes, answers.no) if token_id is not None]
    for token_id in tokens:
        if not 0 <= token_id < arch.vocab_size:
            raise BadModel(
                f"token {token_id} is outside the model's vocabulary of {arch.vocab_size}; "
                "the tokenizer and the weights belong to different models"
            )
    # Like transformers 5, an LM head in the file is used even if config.json ties it.
    tied = LM_HEAD not in files and arch.tied is not False
    name, shape = EMBEDDING if tied else LM_HEAD, (arch.vocab_size, arch.hidden_size)
    # An adapter that replaces the embedding was trained with the LM head of the base model.
    rows = files.read(name, shape, tokens, base=tied).float()
    row = rows[0] if answers.no is None else rows[0] - rows[1]
    return row * answers.scale


def _label_rows(files: TensorFiles, arch: Architecture) -> Tensor:
    """The one row of a classifier, or the difference of its two."""
    rows = files.read(SCORE, (arch.labels, arch.hidden_size)).float()
    return rows[0] if arch.labels == 1 else rows[arch.yes_label] - rows[1 - arch.yes_label]
