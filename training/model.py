"""Qwen3 for training: the arithmetic and parameter names of transformers' Qwen3ForCausalLM.

What differs is the order of work: the constant head of the prompt is computed once for a batch and
each query once for its documents, whose tokens then attend to those keys and values. Padding exists
only inside attention; everything else sees real tokens alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of config.json that the arithmetic needs, and the ids of the two answers."""

    vocab_size: int
    yes: int
    no: int
    hidden_size: int = 160
    intermediate_size: int = 320
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 1e10

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions and their documents as padded token ids.

    Attributes:
        head: (H,) ids before the question, shared by all; may be empty.
        questions, question_lengths: (N, Q) and (N,).
        documents, document_lengths: (N*K, D) and (N*K,), suffix included; a question's K documents
            are neighbours.
    """

    head: Tensor
    questions: Tensor
    question_lengths: Tensor
    documents: Tensor
    document_lengths: Tensor

    @property
    def each(self) -> int:
        return len(self.documents) // len(self.questions)


class RmsNorm(torch.autograd.Function):
    """F.rms_norm in half the time: its own gradient takes twice as many passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        scale = x.square().mean(-1, keepdim=True).add_(1e-6).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        normed, scale, weight = ctx.saved_tensors
        along = grads[0] * normed
        mean = (along @ weight)[..., None].div_(normed.shape[-1])
        to_x = (grads[0] * weight).addcmul_(normed, mean, value=-1).mul_(scale)
        return to_x, along.flatten(0, -2).sum(0)


class Rotate(torch.autograd.Function):
    """Rotary positions; the gradient is the same turn backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return turn(grads[0], *ctx.saved_tensors, -1), None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    """`cos` and `sin` are half as wide as `x`: one number for each pair (i, i + half)."""
    half = cos.shape[-1]
    turned = torch.empty_like(x)
    first, second = x[..., :half], x[..., half:]
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-way)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin, value=way)
    return turned


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return RmsNorm.apply(x, self.weight)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        wide, narrow = (
            shape.num_attention_heads * shape.head_dim,
            shape.num_key_value_heads * shape.head_dim,
        )
        self.q_proj = nn.Linear(shape.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(wide, shape.hidden_size, bias=False)
        self.q_norm, self.k_norm = Norm(shape.head_dim), Norm(shape.head_dim)


class Mlp(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(shape), Mlp(shape)
        self.input_layernorm, self.post_attention_layernorm = (
            Norm(shape.hidden_size),
            Norm(shape.hidden_size),
        )

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.self_attn.o_proj(attended)
        return x + self.mlp(self.post_attention_layernorm(x))


class Reranker(nn.Module):
    """Logit of yes minus logit of no, (N, K), for a batch."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size)
        steps = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        self.register_buffer("frequencies", shape.rope_theta**-steps, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        plan = Plan(self, batch)
        ids = torch.cat([batch.head, batch.questions.flatten(), batch.documents.flatten()])
        x = self.embed_tokens(ids[plan.real])
        for layer in self.layers[:-1]:
            x = layer.finish(x, plan.attend(layer, x))
        last = self.layers[-1]
        x = self.norm(last.finish(x[plan.ends], plan.attend_from_ends(last, x)))
        answers = self.embed_tokens.weight
        return (x @ (answers[self.shape.yes] - answers[self.shape.no])).view(
            len(batch.questions), batch.each
        )


class Spread(torch.autograd.Function):
    """Rows of `x` at `places` of a larger zero tensor. Places are distinct: a copy either way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class Gather(torch.autograd.Function):
    """The reverse of Spread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0]
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(
            0, ctx.saved_tensors[0], grad
        ), None


class Plan:
    """Who sees whom: positions, rotations and masks of one batch, for all layers."""

    def __init__(self, model: Reranker, batch: Batch) -> None:
        self.shape = model.shape
        self.sizes = (len(batch.head), *batch.questions.shape, *batch.documents.shape)
        heads, questions, asked, documents, long = self.sizes
        self.each = batch.each
        self.lengths = batch.document_lengths
        starts = heads + batch.question_lengths.repeat_interleave(self.each)
        asked_real = torch.arange(asked) < batch.question_lengths[:, None]
        told_real = torch.arange(long) < batch.document_lengths[:, None]
        real = torch.cat(
            [torch.ones(heads, dtype=torch.bool), asked_real.flatten(), told_real.flatten()]
        )
        positions = torch.cat(
            [
                torch.arange(heads),
                (heads + torch.arange(asked)).expand(questions, -1).flatten(),
                (starts[:, None] + torch.arange(long)).flatten(),
            ]
        )
        self.real = real.nonzero().flatten()
        self.ends = heads + int(batch.question_lengths.sum()) + batch.document_lengths.cumsum(0) - 1
        angles = positions[self.real][:, None].float() * model.frequencies
        self.cos, self.sin = angles.cos()[:, None], angles.sin()[:, None]
        self.question_mask = _mask(
            torch.cat([torch.ones(asked, heads, dtype=torch.bool), _causal(asked)], 1)
        )
        self.document_mask = _mask(
            torch.cat(
                [
                    torch.ones(documents, 1, long, heads, dtype=torch.bool),
                    asked_real.repeat_interleave(self.each, 0)[:, None, None, :].expand(
                        documents, 1, long, asked
                    ),
                    _causal(long).expand(documents, 1, long, long),
                ],
                -1,
            )
        )
        self.rows = torch.arange(documents)

    def attend(self, layer: Layer, x: Tensor) -> Tensor:
        heads, questions, asked, _, long = self.sizes
        normed = layer.input_layernorm(x)
        query = Rotate.apply(
            layer.self_attn.q_norm(self._split(layer.self_attn.q_proj(normed))), self.cos, self.sin
        )
        parts = [self._fold(part) for part in self._parts(query)]
        (kh, kq, kd), (vh, vq, vd) = self._keys_and_values(layer, normed)
        out = []
        if heads:
            out.append(self._look(parts[0], kh, vh, _mask(_causal(heads)), heads))
        kq_all = torch.cat([kh.expand(questions, -1, -1, -1), kq], 2)
        vq_all = torch.cat([vh.expand(questions, -1, -1, -1), vq], 2)
        out.append(self._look(parts[1], kq_all, vq_all, self.question_mask, asked))
        out.append(
            self._look(
                parts[2], self._all(kh, kq, kd), self._all(vh, vq, vd), self.document_mask, long
            )
        )
        return Gather.apply(torch.cat(out), self.real)

    def attend_from_ends(self, layer: Layer, x: Tensor) -> Tensor:
        """The last layer's answer is read at the last token alone."""
        normed = layer.input_layernorm(x)
        query = layer.self_attn.q_norm(self._split(layer.self_attn.q_proj(normed[self.ends])))
        query = Rotate.apply(query, self.cos[self.ends], self.sin[self.ends])
        (kh, kq, kd), (vh, vq, vd) = self._keys_and_values(layer, normed)
        mask = self.document_mask[self.rows, :, self.lengths - 1][:, :, None]
        return self._look(
            self._fold(query[:, None]), self._all(kh, kq, kd), self._all(vh, vq, vd), mask, 1
        )

    def _keys_and_values(self, layer: Layer, normed: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        attention = layer.self_attn
        key = Rotate.apply(
            attention.k_norm(self._split(attention.k_proj(normed))), self.cos, self.sin
        )
        value = self._split(attention.v_proj(normed))
        return (
            [p.transpose(1, 2) for p in self._parts(key)],
            [p.transpose(1, 2) for p in self._parts(value)],
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.shape.head_dim)

    def _parts(self, x: Tensor) -> list[Tensor]:
        heads, questions, asked, documents, long = self.sizes
        padded = Spread.apply(x, self.real, heads + questions * asked + documents * long)
        head, question, document = padded.split([heads, questions * asked, documents * long])
        return [
            head[None],
            question.view(questions, asked, *x.shape[1:]),
            document.view(documents, long, *x.shape[1:]),
        ]

    def _all(self, head: Tensor, question: Tensor, document: Tensor) -> Tensor:
        question = question.repeat_interleave(self.each, 0)
        return torch.cat([head.expand(len(document), -1, -1, -1), question, document], 2)

    def _fold(self, query: Tensor) -> Tensor:
        """(B, L, heads, E) to (B, kv heads, share*L, E): heads that share keys become rows."""
        rows, length, _, size = query.shape
        groups = self.shape.num_key_value_heads
        folded = query.view(rows, length, groups, -1, size).permute(0, 2, 3, 1, 4)
        return folded.reshape(rows, groups, -1, size)

    def _look(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, length: int) -> Tensor:
        share = query.shape[2] // length
        mask = torch.cat([mask] * share, -2) if mask.shape[-2] > 1 else mask
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = seen.view(len(seen), -1, share, length, seen.shape[-1])
        return seen.permute(0, 3, 1, 2, 4).reshape(len(seen) * length, -1)


def _causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()


def _mask(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape).masked_fill_(~seen, -1e9)


def pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    lengths = [len(row) for row in rows]
    padded = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.tensor(row)
    return padded, torch.tensor(lengths)


def batch(head: list[int], questions: list[list[int]], documents: list[list[int]]) -> Batch:
    return Batch(torch.tensor(head, dtype=torch.long), *pad(questions), *pad(documents))
