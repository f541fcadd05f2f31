"""Safetensors files into the tensors of the forward."""

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
class Layer:
    """One block. Matrices are [out, in], as stored; those that read the same input are one."""

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
    """A model's tensors.

    Attributes:
        embedding: as stored, and on the CPU a window on the file: only the rows
            that are looked up become resident, and they are converted then.
        head: W[yes] - W[no] in float32: the only row of the vocabulary's that is needed.
    """

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    answer_rows: Tensor


def load(
    files: Sequence[Path],
    shape: Architecture,
    answers: AnswerTokenIds,
    device: torch.device,
    dtype: torch.dtype,
    *,
    loaded: Callable[[int, int], None] = lambda *_: None,
) -> Weights:
    """Read each tensor once, straight to where it is used.

    Args:
        loaded: is told of how many of how many layers are read; nearly all of the time
            goes into them.

    Raises:
        BadModel: a tensor is missing or of another shape than config.json says.
    """
    # A window of its own, so that the other's pages go when everything else is copied.
    lookup, source = (_Source(files, device, dtype) for _ in range(2))
    vocabulary = (shape.vocabulary, shape.hidden)
    return Weights(
        embedding=lookup.read("model.embed_tokens.weight", vocabulary).to(device),
        layers=list(_layers(source, shape, loaded)),
        norm=source.join(["model.norm.weight"], (shape.hidden,)).float(),
        answer_rows=_head(source, shape, answers).to(device),
    )


def _layers(
    source: _Source, shape: Architecture, loaded: Callable[[int, int], None]
) -> Iterator[Layer]:
    for place in range(shape.layers):
        yield _layer(source, f"model.layers.{place}.", shape)
        loaded(place + 1, shape.layers)


def _layer(source: _Source, at: str, shape: Architecture) -> Layer:
    hidden, head_dim = shape.hidden, shape.head_dim
    queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
    attention, mlp = at + "self_attn.", at + "mlp."
    return Layer(
        norm=source.join([at + "input_layernorm.weight"], (hidden,)),
        qkv=source.join(
            [attention + f"{name}_proj.weight" for name in "qkv"],
            (queries, hidden),
            (keys, hidden),
            (keys, hidden),
        ),
        q_norm=source.join([attention + "q_norm.weight"], (head_dim,)).float(),
        k_norm=source.join([attention + "k_norm.weight"], (head_dim,)).float(),
        out=source.join([attention + "o_proj.weight"], (hidden, queries)),
        mlp_norm=source.join([at + "post_attention_layernorm.weight"], (hidden,)),
        gate_up=source.join(
            [mlp + "gate_proj.weight", mlp + "up_proj.weight"],
            (shape.mlp, hidden),
            (shape.mlp, hidden),
        ),
        down=source.join([mlp + "down_proj.weight"], (hidden, shape.mlp)),
    )


def _head(source: _Source, shape: Architecture, answers: AnswerTokenIds) -> Tensor:
    if shape.classifier:
        return source.read("score.weight", (1, shape.hidden))[0].float()
    for word in answers:
        if not 0 <= word < shape.vocabulary:
            raise BadModel(f"token {word} is outside the model's vocabulary of {shape.vocabulary}")
    name = "model.embed_tokens.weight" if _is_tied(source, shape) else "lm_head.weight"
    rows = source.read(name, (shape.vocabulary, shape.hidden))
    return rows[answers.yes].float() - rows[answers.no].float()


def _is_tied(source: _Source, shape: Architecture) -> bool:
    # As transformers has it: a tied model's own lm_head.weight is ignored.
    return "lm_head.weight" not in source if shape.tied is None else shape.tied


class _Source:
    """Tensors by name, whichever file holds them."""

    def __init__(self, files: Sequence[Path], device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="pt")
            except (OSError, SafetensorError) as problem:
                raise BadModel(f"cannot read {file}: {problem}") from None
            self._files |= dict.fromkeys(opened.keys(), opened)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor as stored: a window on the mapped file, read when it is used."""
        if name not in self._files:
            raise BadModel(f"the weights lack {name}")
        tensor: Tensor = self._files[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise BadModel(f"{name} is {list(tensor.shape)}; config.json says {list(shape)}")
        if not tensor.is_floating_point():
            raise BadModel(f"{name} holds {tensor.dtype}; rankd reads float32, bfloat16, float16")
        return tensor

    def join(self, names: Sequence[str], *shapes: tuple[int, ...]) -> Tensor:
        """Tensors one above the other, converted; nothing is held twice."""
        rows = sum(shape[0] for shape in shapes)
        joined = torch.empty((rows, *shapes[0][1:]), dtype=self._dtype, device=self._device)
        start = 0
        for name, shape in zip(names, shapes, strict=True):
            joined[start : start + shape[0]].copy_(self.read(name, shape))
            start += shape[0]
        return joined
