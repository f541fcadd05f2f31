"""Qwen3's forward pass over one packed batch, from token ids to one logit per prompt.

Compared with the model in transformers:

- no padding: all tokens of a batch are one packed sequence (`layout`);
- each prompt prefix is computed once for all its documents, and cached between batches;
- in the last layer, only the last token of a prompt goes through queries, output and MLP;
- the LM head is one row: the difference W[yes] - W[no], or W[yes];
- the residual stream, norms, rotation and logits are float32, whatever the dtype of the products.

Tested and measured on CPUs; CUDA and NPU have not been run. On CUDA, attention is one call for a
batch (`packed_attention`) instead of one for a segment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from rankd.engines.native import product_attention
from rankd.engines.native.architecture import Architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.layout import Layout, Segment, lay_out
from rankd.engines.native.packed_attention import PackedAttention, VarlenAttention
from rankd.engines.native.prefix_cache import CANDIDATES, MAX_BYTES, PrefixCache
from rankd.engines.native.rotary import frequencies
from rankd.engines.native.weights import LayerWeights, Weights

# Tokens of a chunk for each thread. A temporary with all query heads of Qwen3-Reranker-0.6B then
# takes 0.5 MB a core, half of its cache; on one core chunks saved a third of norm and rotation.
_CHUNK = 64

# Queries per call of attention. A smaller block skips more of a long document's masked upper
# triangle; a larger one uses the hardware better.
_QUERY_BLOCK = 256


class Qwen3Model:
    """A Qwen3 reranker and its prefix cache.

    Args:
        prefix_cache_bytes: limit on the keys and values kept between batches.
        deterministic: a prompt's logit has the same bits whatever it is batched with and
            whatever is cached. Matrix products round differently with the number of rows,
            so each prefix and each suffix gets a forward pass of its own.
        varlen: computes the attention of a whole batch; None: segment by segment.
    """

    def __init__(
        self,
        weights: Weights,
        architecture: Architecture,
        prefix_cache_bytes: int = MAX_BYTES,
        *,
        deterministic: bool = False,
        varlen: VarlenAttention | None = None,
    ) -> None:
        self._weights = weights
        self._varlen = varlen
        self._architecture = architecture
        self._device = weights.answer_rows.device
        self._dtype = weights.layers[0].out.dtype
        # Deterministic: copying a common beginning would leave a shorter pass for the rest.
        self._prefix_cache = PrefixCache(
            architecture,
            self._device,
            self._dtype,
            prefix_cache_bytes,
            candidates=0 if deterministic else CANDIDATES,
        )
        self._deterministic = deterministic
        angles, self._rotation_factor = frequencies(architecture.rope, architecture.head_dim)
        self._frequencies = angles.to(self._device)

    @torch.inference_mode()
    def score(self, batch: TokenBatch) -> list[float]:
        """One logit, log p(yes) - log p(no), for each of `batch.suffixes`, in their order.

        Raises:
            MemoryError, RuntimeError: the batch does not fit in memory.
        """
        return self._one_by_one(batch) if self._deterministic else self._packed(batch)

    def free_memory(self) -> None:
        """Free everything but the weights."""
        self._prefix_cache.clear()
        if self._device.type != "cpu":
            getattr(torch, self._device.type).empty_cache()

    def _one_by_one(self, batch: TokenBatch) -> list[float]:
        logits: list[float] = []
        for prefix_index, suffix in batch.suffixes:
            prefix = batch.prefixes[prefix_index]
            # A prefix is computed in the same pass whether it was cached before or not.
            if prefix and self._prefix_cache.get(prefix) is None:
                self._packed(TokenBatch([prefix], []))
            logits += self._packed(TokenBatch([prefix], [(0, suffix)]))
        return logits

    def _packed(self, batch: TokenBatch) -> list[float]:
        layout = lay_out(batch, self._prefix_cache)
        packed_logits = self._forward(layout)
        for prefix in layout.new_prefixes:
            self._prefix_cache.add(prefix)
        logits = [0.0] * len(layout.suffix_order)
        for index, logit in zip(layout.suffix_order, packed_logits.tolist(), strict=True):
            logits[index] = logit
        return logits

    def _forward(self, layout: Layout) -> Tensor:
        """Logits of the packed suffixes, [suffixes], float32."""
        embedding = self._weights.embedding
        hidden = F.embedding(layout.ids.to(embedding.device), embedding).float()
        packed = PackedAttention(self._varlen, layout, self._device) if self._varlen else None
        rotation = self._rotation(layout.positions)
        forward = _ForwardPass(self._architecture, layout, rotation, hidden, self._dtype, packed)
        *layers, last = self._weights.layers
        for layer_index, layer in enumerate(layers):
            forward.layer(layer_index, layer)
        outputs = forward.last_layer(len(layers), last)
        normed = F.rms_norm(
            outputs, outputs.shape[-1:], self._weights.norm, self._architecture.norm_eps
        )
        return normed @ self._weights.answer_rows

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary embedding, [tokens, 1, head_dim / 2], float32."""
        angles = positions.to(self._device, torch.float32)[:, None, None] * self._frequencies
        if self._rotation_factor == 1.0:
            return angles.cos(), angles.sin()
        return angles.cos() * self._rotation_factor, angles.sin() * self._rotation_factor


class _ForwardPass:
    """One packed batch on its way through the layers.

    Args:
        rotation: cosine and sine, [tokens, 1, head_dim / 2], float32.
        hidden: the residual stream, [tokens, hidden_size], float32; changed in place by each
            layer.
        dtype: of the matrix products.
        packed: attention of all segments in one call; None: one call for each.
    """

    def __init__(
        self,
        architecture: Architecture,
        layout: Layout,
        rotation: tuple[Tensor, Tensor],
        hidden: Tensor,
        dtype: torch.dtype,
        packed: PackedAttention | None,
    ) -> None:
        self._architecture = architecture
        self._layout = layout
        self._packed = packed
        self._dtype = dtype
        self._cos, self._sin = rotation
        self._last_tokens = layout.last_tokens.to(hidden.device)
        new = partial(torch.empty, dtype=dtype, device=hidden.device)
        self._mask = _causal_mask(layout, new(0))
        self._query_size = architecture.heads * architecture.head_dim
        on_cpu = hidden.device.type == "cpu"
        self._by_products = dtype == torch.bfloat16 and on_cpu and packed is None
        self._hidden = hidden
        self._attended = new((len(hidden), self._query_size))

    def layer(self, layer_index: int, layer: LayerWeights) -> None:
        """Apply one layer to all tokens."""
        normed = self._norm(self._hidden, layer.norm)
        queries = self._norm_and_rotate(
            layer.queries(normed), self._query_norm(layer), self._cos, self._sin
        )
        keys, values = self._keys_values(normed, layer)
        attended = self._attend_all(layer_index, queries, keys, values)
        self._hidden.add_(layer.out(attended))
        self._mlp(self._hidden, layer)

    def last_layer(self, layer_index: int, layer: LayerWeights) -> Tensor:
        """Apply the last layer; other tokens than the last ones only give keys and values.

        Returns:
            The residual stream of each suffix's last token, [suffixes, hidden_size].
        """
        last = self._last_tokens
        normed = self._norm(self._hidden, layer.norm)
        keys, values = self._keys_values(normed, layer)
        hidden, cos, sin = self._hidden[last], self._cos[last], self._sin[last]
        queries = self._norm_and_rotate(layer.queries(normed[last]), layer.q_norm, cos, sin)
        attended = self._attend_last(layer_index, queries, keys, values)
        hidden.add_(layer.out(attended))
        self._mlp(hidden, layer)
        return hidden

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """In the dtype of the products."""

        def norm(rows: slice) -> Tensor:
            part = hidden[rows]
            return (part * _inverse_rms(part, self._architecture.norm_eps)).mul_(weight)

        return self._in_chunks(norm, torch.empty_like(hidden, dtype=self._dtype))

    def _query_norm(self, layer: LayerWeights) -> Tensor:
        """Weight of the queries' norm; with the scale of attention where that takes it so."""
        scale = self._architecture.head_dim**-0.5
        return layer.q_norm * scale if self._by_products else layer.q_norm

    def _mlp(self, hidden: Tensor, layer: LayerWeights) -> None:
        """Add the MLP's output to `hidden`, [tokens, hidden_size], in place."""
        gate, up = layer.gate_up(self._norm(hidden, layer.mlp_norm)).chunk(2, dim=1)
        hidden.add_(layer.down(F.silu(gate).mul_(up)))

    def _keys_values(self, normed: Tensor, layer: LayerWeights) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, [tokens, kv_heads, head_dim] each."""
        keys, values = layer.keys_values(normed).chunk(2, dim=1)
        rotated = self._norm_and_rotate(keys, layer.k_norm, self._cos, self._sin)
        return rotated, values.unflatten(1, (-1, self._architecture.head_dim))

    def _norm_and_rotate(self, flat: Tensor, weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Normalise each attention head and rotate it by its token's position.

        The norm's weight is multiplied into the small tables of the rotation, which saves a
        pass over all heads.

        Args:
            flat: [tokens, heads * head_dim]; overwritten if it is float32.
            weight: of the norm, [head_dim], float32.
            cos, sin: [tokens, 1, head_dim / 2], float32.

        Returns:
            [tokens, heads, head_dim], in the dtype of `flat`; computed in float32.
        """
        all_heads = flat.unflatten(1, (-1, self._architecture.head_dim))
        weight_first, weight_second = weight.chunk(2)

        def norm_and_rotate(rows: slice) -> Tensor:
            heads = all_heads[rows].float()
            normed = heads.mul_(_inverse_rms(heads, self._architecture.norm_eps))
            first, second = normed.chunk(2, dim=-1)
            cosine, sine = cos[rows], sin[rows]
            rotated: Tensor = normed * torch.cat(
                [cosine * weight_first, cosine * weight_second], dim=-1
            )
            rotated_first, rotated_second = rotated.chunk(2, dim=-1)
            rotated_first.addcmul_(second, sine * weight_second, value=-1)
            rotated_second.addcmul_(first, sine * weight_first)
            return rotated

        return self._in_chunks(norm_and_rotate, flat.new_empty(all_heads.shape))

    def _in_chunks(self, function: Callable[[slice], Tensor], output: Tensor) -> Tensor:
        """Fill `output` with what `function` returns for its rows, chunk by chunk.

        On a CPU, temporaries of a chunk stay in the cache; on other devices there is one chunk.
        """
        tokens = len(output)
        step = _CHUNK * torch.get_num_threads() if output.device.type == "cpu" else max(1, tokens)
        for start in range(0, tokens, step):
            rows = slice(start, start + step)
            output[rows] = function(rows)
        return output

    def _attend_all(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attention of all tokens in one layer, [tokens, heads * head_dim]."""
        if self._packed is not None:
            return self._packed.attend(layer_index, queries, keys, values)
        for segment in self._layout.segments:
            self._attend(segment, layer_index, queries, keys, values)
        return self._attended

    def _attend(
        self, segment: Segment, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> None:
        """Attention of a segment in one layer; writes its rows of `self._attended`.

        A token attends to its prefix and to the tokens up to itself in its own sequence.
        """
        arch = self._architecture
        all_keys, all_values = self._context(segment, layer_index, keys, values)
        outputs = self._attended[segment.tokens].view(
            segment.count, segment.length, arch.kv_heads, -1, arch.head_dim
        )
        if self._by_products:
            # [sequences, kv_heads, length, query heads of each, head_dim]
            own = queries[segment.tokens].view(outputs.shape).transpose(1, 2)
            by_token = own.reshape(segment.count * arch.kv_heads, -1, arch.head_dim)
            output = product_attention.attend(
                by_token, all_keys[:, 0], all_values[:, 0], arch.heads // arch.kv_heads
            )
            outputs.copy_(output.view(own.shape).transpose(1, 2))
            return
        grouped = self._grouped(queries[segment.tokens], segment)
        for start in range(0, segment.length, _QUERY_BLOCK):
            stop = min(start + _QUERY_BLOCK, segment.length)
            visible = segment.context + stop
            output = F.scaled_dot_product_attention(
                grouped[:, :, start:stop],
                all_keys[:, :, :visible].expand(-1, grouped.shape[1], -1, -1),
                all_values[:, :, :visible].expand(-1, grouped.shape[1], -1, -1),
                attn_mask=self._mask_for(segment.context + start, stop - start),
            )
            outputs[:, start:stop] = output.unflatten(0, (segment.count, -1)).permute(0, 3, 1, 2, 4)

    def _attend_last(
        self, layer_index: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attention of each suffix's last token; it sees its whole prompt, so needs no mask.

        Args:
            queries: of the last tokens, [suffixes, heads, head_dim].
            keys, values: of all tokens, [tokens, kv_heads, head_dim].

        Returns:
            [suffixes, heads * head_dim].
        """
        if self._packed is not None:
            return self._packed.attend_last(layer_index, queries, keys, values)
        arch = self._architecture
        start, outputs = 0, []
        for segment in self._layout.segments:
            all_keys, all_values = self._context(segment, layer_index, keys, values)
            if segment.extends_prefix:
                continue
            # [suffixes * kv_heads, 1, query heads of each, head_dim]: heads as if they were tokens.
            grouped = queries[start : start + segment.count].reshape(
                segment.count * arch.kv_heads, 1, -1, arch.head_dim
            )
            output = F.scaled_dot_product_attention(grouped, all_keys, all_values)
            outputs.append(output.reshape(segment.count, self._query_size))
            start += segment.count
        # A batch of prefixes only has no last tokens: [0, heads * head_dim].
        return torch.cat(outputs) if outputs else queries.flatten(1)

    def _grouped(self, queries: Tensor, segment: Segment) -> Tensor:
        """[sequences * kv_heads, query heads of each, length, head_dim]."""
        arch = self._architecture
        split = queries.view(segment.count, segment.length, arch.kv_heads, -1, arch.head_dim)
        return split.permute(0, 2, 3, 1, 4).flatten(0, 1)

    def _context(
        self, segment: Segment, layer_index: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix and the segment's own tokens, in one layer.

        A segment that extends its prefix writes its own into the prefix.

        Returns:
            [sequences * kv_heads, 1, context + length, head_dim] each.
        """
        pair = []
        for cached, packed in ((segment.prefix.keys, keys), (segment.prefix.values, values)):
            own = packed[segment.tokens].unflatten(0, (segment.count, segment.length))
            own = own.transpose(1, 2)
            if segment.extends_prefix:
                cached[layer_index, :, segment.context :] = own[0]
                whole = cached[layer_index][None]
            else:
                whole = torch.cat(
                    [cached[layer_index].expand(segment.count, -1, -1, -1), own], dim=2
                )
            pair.append(whole.flatten(0, 1)[:, None])
        return pair[0], pair[1]

    def _mask_for(self, before: int, length: int) -> Tensor | None:
        """Causal mask of `length` queries after `before` keys, [length, before + length].

        None where a single query sees all keys.
        """
        if length == 1:
            return None
        width = self._mask.shape[1] - len(self._mask)
        return self._mask[:length, width - before : width + length]


def _inverse_rms(rows: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean square + eps) along the last dimension, which stays with length 1."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return norm.square_().div_(rows.shape[-1]).add_(eps).rsqrt_()


def _causal_mask(layout: Layout, like: Tensor) -> Tensor:
    """The largest mask of a batch; smaller ones are windows on it.

    Returns:
        [size, max_length + size]: `max_length` columns of 0, then an upper triangle of -inf.
    """
    size = min(_QUERY_BLOCK, max(segment.length for segment in layout.segments))
    mask = like.new_zeros(size, layout.max_length + size)
    mask[:, layout.max_length :] = torch.full((size, size), float("-inf")).triu(1)
    return mask
