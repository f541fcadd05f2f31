"""Write the reranker: which of the question's words the document has, and how near its meaning is.

Nothing here is learnt. The knowledge is in the table of meanings (`table.py`) and in the weight of
each token. Two numbers reach the last token:

    coverage  the weight of the question's tokens that stand in the document, as S / (S + Q) with S
              for those found, each once, and Q for all of the question. A token's weight is its
              rarity squared;
    cosine    between the sums of the meanings of the question's and the document's tokens. Rare
              words of the instruction count a little in the question's sum.

How the layers compute them:

    layer 0  each token learns whether it stands in the instruction, the question or the document;
    layer 1  a token of the document looks for itself in the question, and in the document so far;
             the MLP marks those that are found and stand there for the first time. `<document`
             sums up the question's meanings and `assistant` the document's, weighted by rarity;
    layer 2  the last token weighs marked tokens against the question's. `<think>` adds
             the two sums as unit vectors, and the MLP squares that: 2 + 2 cos;
    layer 3  the last token reads the cosine.

Thanks to QK-norm a key's logit is `gain * cos(query, key)`: what counts is the share of a dimension
in a key's length. The rotation is so slow that positions do not matter up to 32,768 tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

import vocabulary

SIZE = 126  # numbers of a token's meaning
HEAD = 64
PARTS = [slice(start, min(SIZE, start + HEAD)) for start in range(0, SIZE, HEAD)]  # of a meaning
# Lanes of the residual stream: a meaning, an identity, and single numbers.
MEANING, IDENTITY = slice(0, SIZE), slice(SIZE, SIZE + 44)
(
    ONE, FILL, MEANING_LEVEL, WEIGHT_LEVEL, IS_QUERY, IS_DOCUMENT, SUMS_QUESTION, SUMS_DOCUMENT,
    IS_THINK, IS_LAST, REST, IS_INSTRUCTION, IN_INSTRUCTION, IN_QUESTION, IN_DOCUMENT, FOUND, FIRST,
    HIT, COVERAGE, COSINE,
) = range(SIZE + 44, SIZE + 64)  # fmt: skip
WIDTH = math.ceil((SIZE + 64) / 16) * 16
# Dimensions of a head: 44 for identities, three more for a search, four for weighing.
SAME = [*range(6, 28), *range(38, 60)]
X, Y, Z = 60, 61, 62
A, B, C, D = 28, 29, 30, 31
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": math.ceil((SIZE + 1) / 16) * 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2 * (1 + len(PARTS)),
    "num_key_value_heads": 1 + len(PARTS),
    "head_dim": HEAD,
}
THETA = 1e30
# Logits of keys that point where the query does: of a search for a token, and of a weighing, where
# a higher one would multiply the errors of bfloat16.
SEARCH, WEIGH = 54.0, 24.0
LOWERED = 3.0  # what the level of a token that does not count is lowered by
# How much of a sum's query looks at REST, in relation to what looks at tokens that count. Without
# it, the sum of an empty document would be that of the question. With it, REST, which has no
# meaning, counts as much as a token of e^-9 of the largest weight.
REST_SHARE = 0.58
INSTRUCTION_LOWERED = 0.8  # the same for the instruction's tokens in the question's sum
SHARE = 0.94  # of dimension A in the key of the rarest token
LENGTH = 3.0  # squared, of each embedding
FLAG = 0.5
# Large, so that the norms of `<think>` and of the last token hardly depend on the document.
THINK_CONSTANT, LAST_CONSTANT = 100.0, 10.0
UNIT_GAIN = 0.5  # of the unit vectors that `<think>` reads
USUAL = 0.3  # the cosine at which COSINE is zero


@dataclass(frozen=True, slots=True)
class Heads:
    """Slices of one layer's attention weights by head; writing to them writes the layer."""

    attention: Qwen3Attention

    def q(self, head: int) -> Tensor:
        return self.attention.q_proj.weight[head * HEAD : (head + 1) * HEAD]

    def k(self, head: int) -> Tensor:
        return self.attention.k_proj.weight[head * HEAD : (head + 1) * HEAD]

    def v(self, head: int) -> Tensor:
        return self.attention.v_proj.weight[head * HEAD : (head + 1) * HEAD]

    def o(self, head: int) -> Tensor:
        return self.attention.o_proj.weight[:, head * HEAD : (head + 1) * HEAD]


@torch.no_grad()
def construct(
    config: Qwen3Config, table: Tensor, weights: Tensor, tokenizer: Tokenizer
) -> Qwen3ForCausalLM:
    """The model without a readout, in float32.

    Args:
        config: has the numbers of `SHAPE`.
        table: (V, SIZE), as long as a token is telling.
        weights: (V,), above 0: what each token counts in the coverage. A word has the same with and
            without a space before it, or a document could cover more than there is.
    """
    model = Qwen3ForCausalLM(config).float().eval()
    for weight in model.parameters():
        weight.fill_(1.0 if weight.ndim == 1 else 0.0)
    _embeddings(model.model.embed_tokens.weight, table, weights, tokenizer)
    layers = [Heads(layer.self_attn) for layer in model.model.layers]
    for heads in layers:
        for norm in (heads.attention.q_norm, heads.attention.k_norm):
            norm.weight.fill_(math.sqrt(SEARCH / math.sqrt(HEAD)))
            norm.weight[[A, B, C, D]] = math.sqrt(WEIGH / math.sqrt(HEAD))
    # A query that also looks at REST is longer, and norms are undone by a gain.
    for norm in (layers[1].attention.q_norm, layers[1].attention.k_norm):
        norm.weight[[A, B, C, D]] *= (1 + REST_SHARE**2) ** 0.25
    mlps = [layer.mlp for layer in model.model.layers]
    _segments(layers[0])
    _match(layers[1], mlps[1])
    _sum(layers[1])
    _cover(layers[2])
    _compare(layers[2], mlps[2])
    _read(layers[3])
    return model


def _embeddings(rows: Tensor, table: Tensor, weights: Tensor, tokenizer: Tokenizer) -> None:
    words = vocabulary.words(tokenizer)
    words[[tokenizer.token_to_id(word) for word in ("yes", "no")]] = False  # the readout's rows
    size = table.norm(dim=1)
    rows[:, ONE] = 1
    by_lane = {
        MEANING_LEVEL: size / size[words].quantile(0.98),
        WEIGHT_LEVEL: weights / weights[words].max(),
    }
    for lane, share in by_lane.items():
        level = _level(SHARE + share.clamp(0.02, 1.2).log() / WEIGH)
        rows[:, lane] = torch.where(words, level, -5.0) * 0.1
    rows[words, MEANING] = F.normalize(table[words], dim=1) * 0.9
    noise = torch.Generator().manual_seed(0)
    drawn = F.normalize(torch.randn(len(rows), 44, generator=noise), dim=1)
    rows[:, IDENTITY] = drawn[vocabulary.spellings(tokenizer)] * words[:, None]
    marks = {
        "<query": (IS_QUERY, REST),
        "<document": (IS_DOCUMENT, SUMS_QUESTION),
        "<instruct": (IS_INSTRUCTION,),
        "<|im_start|>": (REST,),
        "assistant": (SUMS_DOCUMENT,),
    }
    for text, lanes in marks.items():
        rows[tokenizer.token_to_id(text), list(lanes)] = math.sqrt(0.5)
    left = LENGTH - rows.square().sum(1)
    rows[:, FILL] = left.clamp(min=0).sqrt()
    rows[tokenizer.token_to_id("<think>"), IS_THINK] = THINK_CONSTANT
    last = tokenizer.encode("\n\n").ids[-1]
    rows[last, [IS_LAST, FILL]] = torch.tensor([1.0, LAST_CONSTANT])


def _level(share: Tensor) -> Tensor:
    """Which `t` gives dimension A this share of a key (A, B, C) = (t, t - LOWERED, 1)."""
    levels = torch.linspace(0, LOWERED + 1 / LOWERED, 2_000)
    shares = levels / (levels.square() + (levels - LOWERED).square() + 1).sqrt()
    return levels[torch.searchsorted(shares, share.contiguous()).clamp(max=len(levels) - 1)]


def _unit(lane_size: float, length: float = LENGTH) -> float:
    """What a lane of this size becomes by the norm of a token of this squared length."""
    return lane_size * math.sqrt(WIDTH / length)


def _segments(heads: Heads) -> None:
    """Each token looks at `<document` if it has seen it, else at `<query`, else at `<instruct`."""
    heads.k(0)[X, IS_DOCUMENT] = 8
    heads.k(0)[X, IS_QUERY] = 4
    heads.k(0)[Y, IS_QUERY] = 4
    heads.k(0)[X, IS_INSTRUCTION] = 4
    heads.k(0)[Y, IS_INSTRUCTION] = 10
    heads.k(0)[Y, ONE] = 1
    heads.q(0)[X, ONE] = 1
    marks = (IS_INSTRUCTION, IN_INSTRUCTION), (IS_QUERY, IN_QUESTION), (IS_DOCUMENT, IN_DOCUMENT)
    for dimension, (mark, flag) in enumerate(marks):
        heads.v(0)[dimension, mark] = 1 / _unit(math.sqrt(0.5))
        heads.o(0)[flag, dimension] = FLAG


def _match(heads: Heads, mlp: torch.nn.Module) -> None:
    """Is this token of the document in the question, and is it the first of its kind?

    Where nothing is found, attention rests on `<query`. In the first search a token's own key,
    which it finds always, does not outweigh that; in the second each copy so far weighs as much.
    """
    flagged = LENGTH + FLAG**2
    heads.k(0)[SAME, IDENTITY] = torch.eye(44)
    heads.k(0)[X, IN_QUESTION] = heads.k(0)[Y, IN_DOCUMENT] = 1 / FLAG
    heads.k(0)[Z, IS_QUERY] = 100
    searches = ((0, X, 0.75, 0.25, 0.61), (1, Y, 0.6, 0.4, 1 / math.sqrt(2)))
    for head, dimension, same, segment, rest in searches:
        heads.q(head)[SAME, IDENTITY] = same * torch.eye(44)
        heads.q(head)[dimension, ONE] = segment
        heads.q(head)[Z, ONE] = rest
    found, first = heads.v(0)[0], heads.v(0)[1]
    found[IN_QUESTION] = 1 / _unit(FLAG, flagged)
    found[IS_QUERY] = -FLAG / math.sqrt(0.5) / _unit(FLAG, flagged)
    first[IS_QUERY] = 1 / _unit(math.sqrt(0.5), flagged)
    heads.o(0)[FOUND, 0] = heads.o(1)[FIRST, 1] = FLAG
    # `found` + `first` is 1.5 for what counts, 1.33 for a second one, and 1 for what is not found.
    # The difference of two units is a step in between, so that errors of bfloat16 do not matter.
    step = 1 / 24
    for unit, start in enumerate((1.42 - step / 2, 1.42 + step / 2)):
        for lane, factor in (
            (FOUND, 1 / FLAG),
            (FIRST, 1 / FLAG),
            (ONE, -start),
            (IN_QUESTION, -2 / FLAG),
        ):
            mlp.gate_proj.weight[unit, lane] = 60 * factor
        mlp.up_proj.weight[unit, ONE] = 1
    length = flagged + FLAG**2 * 1.25
    height = FLAG / (_unit(60 * step, length) * _unit(1, length))
    mlp.down_proj.weight[HIT, :2] = torch.tensor([height, -height])


def _sum(heads: Heads) -> None:
    """A key has A for the document's sum and B for the question's; else queries look at REST."""
    for key, part in enumerate(PARTS, start=1):
        size = part.stop - part.start
        for dimension, flag in ((A, IN_DOCUMENT), (B, IN_QUESTION)):
            heads.k(key)[dimension, MEANING_LEVEL] = 10
            heads.k(key)[dimension, flag] = LOWERED / FLAG
            heads.k(key)[dimension, ONE] = -LOWERED
        heads.k(key)[B, IN_INSTRUCTION] = (LOWERED - INSTRUCTION_LOWERED) / FLAG
        heads.k(key)[C, ONE] = 1
        heads.k(key)[D, REST] = 1000
        for head, dimension, mark in ((2 * key, A, SUMS_DOCUMENT), (2 * key + 1, B, SUMS_QUESTION)):
            heads.q(head)[D, ONE] = 1
            heads.q(head)[[dimension, D], mark] = 100 * torch.tensor([1, REST_SHARE])
            heads.o(head)[part, :size] = 300 * torch.eye(size)
        heads.v(key)[:size, part] = torch.eye(size)


def _cover(heads: Heads) -> None:
    """The last token looks at the question's tokens and at those that are marked."""
    heads.k(0)[A, WEIGHT_LEVEL] = heads.k(0)[B, WEIGHT_LEVEL] = 10
    heads.k(0)[A, [IN_QUESTION, HIT]] = LOWERED / FLAG
    heads.k(0)[A, ONE] = -LOWERED
    heads.k(0)[B, ONE] = -LOWERED
    heads.k(0)[C, ONE] = 1
    heads.k(0)[D, REST] = 1000
    heads.q(0)[A, IS_LAST] = 100
    heads.q(0)[D, ONE] = 1
    heads.v(0)[0, HIT] = 1 / _unit(FLAG, LENGTH + FLAG**2 * 3.25)
    heads.o(0)[COVERAGE, 0] = 1


def _compare(heads: Heads, mlp: torch.nn.Module) -> None:
    """`<think>` adds the two sums, and squares."""
    for key, part in enumerate(PARTS, start=1):
        size = part.stop - part.start
        for dimension, mark in ((A, SUMS_DOCUMENT), (B, SUMS_QUESTION), (D, REST)):
            heads.k(key)[dimension, mark] = 600
        heads.k(key)[C, ONE] = 1
        heads.v(key)[:size, part] = torch.eye(size)
        for head, dimension in ((2 * key, A), (2 * key + 1, B)):
            heads.q(head)[dimension, IS_THINK] = 1
            heads.q(head)[D, ONE] = 1
            heads.o(head)[part, :size] = UNIT_GAIN * torch.eye(size)
    # silu(x) is about x/2 near zero: gate times up is a square.
    mlp.gate_proj.weight[:SIZE, MEANING] = 0.1 * torch.eye(SIZE)
    mlp.up_proj.weight[:SIZE, MEANING] = torch.eye(SIZE)
    mlp.down_proj.weight[COSINE, :SIZE] = 30
    # The squares of two unit vectors with the usual cosine, as a share of the constant's.
    usual = (2 + 2 * USUAL) * WIDTH * (UNIT_GAIN / THINK_CONSTANT) ** 2
    mlp.gate_proj.weight[SIZE, IS_THINK] = mlp.up_proj.weight[SIZE, IS_THINK] = 1
    mlp.down_proj.weight[COSINE, SIZE] = -30 * 0.05 * usual


def _read(heads: Heads) -> None:
    """The last token takes the cosine from `<think>`."""
    heads.k(0)[A, IS_THINK] = 1
    heads.k(0)[D, REST] = 600
    heads.k(0)[C, ONE] = 1
    heads.q(0)[A, IS_LAST] = 100
    heads.q(0)[D, ONE] = 1
    heads.v(0)[0, COSINE] = 1
    heads.o(0)[COSINE, 0] = THINK_CONSTANT**3 / (3 * WIDTH**2.5 * UNIT_GAIN**2)
