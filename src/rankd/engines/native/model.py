"""The forward of Qwen3 over one packed row, up to the one number that is asked for.

Against the library's model: nothing is padded, each head is computed once for all its
documents, only the last token of a document goes through the last layer's queries and
MLP, and the vocabulary is one row, W[yes] - W[no].

Plain torch calls only. It was tested and measured on CPUs; CUDA and NPU take the same
path, where it has not been run yet.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rankd.engines.native.architecture import Architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.layout import Layout, Run, lay_out
from rankd.engines.native.prefix_cache import BYTES, CANDIDATES, PrefixCache
from rankd.engines.native.weights import Layer, Weights

# Queries attended at once. Smaller skips more of the upper triangle of a long
# document, larger is better arithmetic.
_CHUNK = 256


class Qwen3Model:
    """The forward, and the heads that it keeps.

    Args:
        deterministic: a prompt's logit is the same to the last bit whatever it is batched
            with and whatever was computed before. Matrix products round differently with
            the number of rows, so each head and each document gets a pass of its own.
    """

    def __init__(
        self,
        weights: Weights,
        shape: Architecture,
        head_bytes: int = BYTES,
        *,
        deterministic: bool = False,
    ) -> None:
        self._weights = weights
        self._shape = shape
        self._device = weights.answer_rows.device
        self._dtype = weights.layers[0].qkv.dtype
        # A head that begins like another is no exception: its rest would be a shorter pass.
        self._heads = PrefixCache(
            shape,
            self._device,
            self._dtype,
            head_bytes,
            candidates=0 if deterministic else CANDIDATES,
        )
        self._deterministic = deterministic
        halves = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        self._frequencies = (1.0 / shape.theta**halves).to(self._device)

    @torch.inference_mode()
    def score(self, batch: TokenBatch) -> list[float]:
        """One logit for each tail, in their order."""
        return self._one_by_one(batch) if self._deterministic else self._packed(batch)

    def _one_by_one(self, batch: TokenBatch) -> list[float]:
        logits: list[float] = []
        for place, ids in batch.suffixes:
            head = batch.prefixes[place]
            # Whether the head is kept from before or computed now, its pass is the same one.
            if head and self._heads.get(head) is None:
                self._packed(TokenBatch([head], []))
            logits += self._packed(TokenBatch([head], [(0, ids)]))
        return logits

    def _packed(self, batch: TokenBatch) -> list[float]:
        layout = lay_out(batch, self._heads)
        hidden = self._forward(layout)
        for head in layout.new:
            self._heads.keep(head)
        logits = [0.0] * len(layout.order)
        for place, logit in zip(layout.order, hidden.tolist(), strict=True):
            logits[place] = logit
        return logits

    def free_memory(self) -> None:
        """Keep nothing but the weights."""
        self._heads.forget()
        if self._device.type != "cpu":
            getattr(torch, self._device.type).empty_cache()

    def _forward(self, layout: Layout) -> Tensor:
        row = F.embedding(layout.ids.to(self._weights.embedding.device), self._weights.embedding)
        row = row.to(self._dtype)
        pass_ = _Pass(self._shape, layout, self._rotation(layout.positions), row)
        *layers, last = self._weights.layers
        for place, layer in enumerate(layers):
            pass_.layer(place, layer)
        ends = pass_.last_layer(len(layers), last).float()
        normed = F.rms_norm(ends, ends.shape[-1:], self._weights.norm, self._shape.eps)
        return normed @ self._weights.answer_rows

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [tokens, 1, head_dim / 2], in float32 whatever the model's type."""
        angles = positions.to(self._device, torch.float32)[:, None, None] * self._frequencies
        return angles.cos(), angles.sin()


class _Pass:
    """One batch on its way through the layers; `row` is the residual stream."""

    def __init__(
        self, shape: Architecture, layout: Layout, rotation: tuple[Tensor, Tensor], row: Tensor
    ) -> None:
        self._shape = shape
        self._layout = layout
        self._cos, self._sin = rotation
        self._last = layout.last.to(row.device)
        self._mask = _causal(layout, row)
        self._queries = shape.heads * shape.head_dim
        self.row = row
        # One buffer for all layers: fresh memory of this size costs page faults.
        width = self._queries + 2 * shape.kv_heads * shape.head_dim
        self._qkv = row.new_empty(len(row), width)
        self._gate_up = row.new_empty(len(row), 2 * shape.mlp)
        self._attended = row.new_empty(len(row), self._queries)

    def layer(self, place: int, layer: Layer) -> None:
        normed = self._norm(self.row, layer.norm)
        torch.mm(normed, layer.qkv.t(), out=self._qkv)
        queries = self._turned(self._qkv[:, : self._queries], layer.q_norm, self._cos, self._sin)
        keys, values = self._keys_values(self._qkv[:, self._queries :], layer)
        for run in self._layout.runs:
            self._attend(run, place, queries, keys, values)
        self.row.addmm_(self._attended, layer.out.t())
        self._mlp(self.row, layer)

    def last_layer(self, place: int, layer: Layer) -> Tensor:
        """The residual stream of each document's last token; others only give keys and values."""
        normed = self._norm(self.row, layer.norm)
        keys_values = normed @ layer.qkv[self._queries :].t()
        keys, values = self._keys_values(keys_values, layer)
        ends, cos, sin = self.row[self._last], self._cos[self._last], self._sin[self._last]
        projected = normed[self._last] @ layer.qkv[: self._queries].t()
        queries = self._turned(projected, layer.q_norm, cos, sin)
        ends.addmm_(self._attend_ends(place, queries, keys, values), layer.out.t())
        self._mlp(ends, layer)
        return ends

    def _norm(self, row: Tensor, weight: Tensor) -> Tensor:
        normed: Tensor = F.rms_norm(row, row.shape[-1:], weight, self._shape.eps)
        return normed

    def _mlp(self, row: Tensor, layer: Layer) -> None:
        buffer = self._gate_up[: len(row)]
        torch.mm(self._norm(row, layer.mlp_norm), layer.gate_up.t(), out=buffer)
        gate, up = buffer.chunk(2, dim=1)
        row.addmm_(F.silu(gate).mul_(up), layer.down.t())

    def _keys_values(self, projected: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
        """[tokens, kv_heads, head_dim] each."""
        keys, values = projected.chunk(2, dim=1)
        turned = self._turned(keys, layer.k_norm, self._cos, self._sin)
        return turned, values.unflatten(1, (-1, self._shape.head_dim))

    def _turned(self, flat: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Normalised by head and rotated by position: [tokens, heads, head_dim].

        The norm's weight is folded into the small tables of the rotation, which saves a
        pass over all heads.
        """
        heads = flat.unflatten(1, (-1, self._shape.head_dim)).float()
        length = torch.linalg.vector_norm(heads, dim=-1, keepdim=True)
        scale = (length.square_() / self._shape.head_dim).add_(self._shape.eps).rsqrt_()
        even = heads * scale
        first, second = even.chunk(2, dim=-1)
        weight_first, weight_second = weight.chunk(2)
        turned: Tensor = even * torch.cat([cos * weight_first, cos * weight_second], dim=-1)
        turned_first, turned_second = turned.chunk(2, dim=-1)
        turned_first.addcmul_(second, sin * weight_second, value=-1)
        turned_second.addcmul_(first, sin * weight_first)
        return turned.to(flat.dtype)

    def _attend(self, run: Run, place: int, queries: Tensor, keys: Tensor, values: Tensor) -> None:
        """Each token sees its head and what comes before it in its own document."""
        shape = self._shape
        known, seen = self._context(run, place, keys, values)
        asked = self._grouped(queries[run.rows], run)
        answers = self._attended[run.rows].view(
            run.count, run.length, shape.kv_heads, -1, shape.head_dim
        )
        for start in range(0, run.length, _CHUNK):
            stop = min(start + _CHUNK, run.length)
            reach = run.context + stop
            answer = F.scaled_dot_product_attention(
                asked[:, :, start:stop],
                known[:, :, :reach].expand(-1, asked.shape[1], -1, -1),
                seen[:, :, :reach].expand(-1, asked.shape[1], -1, -1),
                attn_mask=self._mask_of(run.context + start, stop - start),
            )
            answers[:, start:stop] = answer.unflatten(0, (run.count, -1)).permute(0, 3, 1, 2, 4)

    def _attend_ends(self, place: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The last token of each document sees everything, so nothing is masked."""
        shape = self._shape
        done, answers = 0, []
        for run in self._layout.runs:
            known, seen = self._context(run, place, keys, values)
            if run.extends:
                continue
            asked = queries[done : done + run.count].reshape(
                run.count * shape.kv_heads, 1, -1, shape.head_dim
            )
            answer = F.scaled_dot_product_attention(asked, known, seen)
            answers.append(answer.reshape(run.count, self._queries))
            done += run.count
        # A row of a head alone has no documents that end.
        return torch.cat(answers) if answers else queries.flatten(1)

    def _grouped(self, queries: Tensor, run: Run) -> Tensor:
        """[documents * kv_heads, heads of each, length, head_dim]."""
        parted = queries.view(run.count, run.length, self._shape.kv_heads, -1, self._shape.head_dim)
        return parted.permute(0, 2, 3, 1, 4).flatten(0, 1)

    def _context(self, run: Run, place: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of head and documents, [documents * kv_heads, 1, tokens, head_dim]."""
        pair = []
        for kept, fresh in ((run.head.keys, keys), (run.head.values, values)):
            own = fresh[run.rows].unflatten(0, (run.count, run.length)).transpose(1, 2)
            if run.extends:
                kept[place, :, run.context :] = own[0]
                whole = kept[place][None]
            else:
                whole = torch.cat([kept[place].expand(run.count, -1, -1, -1), own], dim=2)
            pair.append(whole.flatten(0, 1)[:, None])
        return pair[0], pair[1]

    def _mask_of(self, before: int, length: int) -> Tensor | None:
        """Bottom-right causal mask of `length` queries that all see `before` keys."""
        if length == 1:
            return None
        width = self._mask.shape[1] - len(self._mask)
        return self._mask[:length, width - before : width + length]


def _causal(layout: Layout, like: Tensor) -> Tensor:
    """The mask that every other is a window of: free columns, then a triangle."""
    size = min(_CHUNK, max(run.length for run in layout.runs))
    mask = like.new_zeros(size, layout.reach + size)
    mask[:, layout.reach :] = torch.full((size, size), float("-inf")).triu(1)
    return mask
