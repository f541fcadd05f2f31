"""Add what words mean to a trained lexical model: an exact cosine of two sums over `table.py`.

Nothing is learnt but the readout. The hidden state grows by 72 lanes and each layer by two heads
of queries and one of keys and values; the old lanes and heads compute what they did. The MLPs lose
the units that wrote least.

    layer 0  every token learns whether it stands in the question or in the document;
    layer 1  `<document` sums up the question's meanings and `assistant` the document's, each token
             weighted by its rarity. The sums are large beside all else in these two tokens, so that
             the next norm makes them unit vectors;
    layer 2  `<think>` adds the two unit vectors, and the MLP sums the squares of that: 2 + 2 cos.
             Its large constant keeps its norm the same for all documents;
    layer 3  the last token reads the result.

Thanks to QK-norm a key's logit is `gain * cos(query, key)`: what counts is the share of a dimension
in a key's length.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Tensor

import pairs as pairs_file
import table as table_file
import vocabulary
from batches import Sampler
from checkpoint import FINAL, LEXICAL, restore, save
from construct import SCORES, Heads
from loss import loss_of
from model import Batch, Reranker
from table import SIZE, speaks

OLD = 160  # lanes of the lexical model
MEANING = slice(OLD, OLD + SIZE)
ONE, WEIGHT, DOC, QUERY, SUM_DOC, SUM_QUERY, THINK, REST, MATCH = range(OLD + SIZE, OLD + SIZE + 9)
WIDE = OLD + SIZE + 9
A, B, C, D = 28, 29, 30, 31  # dimensions of a head that do not turn with the position
KEY, FIRST, SECOND = 2, 4, 5  # the new heads: one of keys and values, two of queries
# The new lanes are short beside the old ones, so that they hardly change a token's norm.
SHORT = 0.15
ONE_SIZE, WEIGHT_SIZE, FLAG = 0.03, 0.01, 0.03  # of these lanes in the residual stream
STRANGE = 3.0  # what a token of the other text loses; see `_pool`
SHARE = 0.94  # of dimension A in the key of the rarest token
STEADY, UNIT = 100.0, 2.0  # the constant of `<think>`; gain of the unit vectors it reads
CAUTION = 0.4  # the weight of right documents in the readout: fewer wrong ones above one half
USUAL = 0.3  # the cosine at which MATCH is zero


def widen(old: Reranker, table: Tensor, tokenizer: Tokenizer) -> Reranker:
    shape = replace(
        old.shape,
        hidden_size=WIDE,
        intermediate_size=old.shape.intermediate_size + SIZE + 1,
        num_attention_heads=6,
        num_key_value_heads=3,
    )
    model = Reranker(shape)
    with torch.no_grad():
        _copy(old, model)
        layers = [Heads(layer.self_attn, shape.head_dim) for layer in model.layers]
        gains = [_gain(layer) for layer in layers]
        _embeddings(old, model, table, tokenizer, gains[1])
        _segments(model, layers[0], tokenizer)
        _pool(layers[1])
        _compare(model, layers[2])
        _read(layers[3])
    return model


def _copy(old: Reranker, model: Reranker) -> None:
    """The old weights in the first rows and columns; zero elsewhere, one in the norms.

    A norm divides by the mean over all lanes, of which there are more now.
    """
    before = old.state_dict()
    for name, weight in model.state_dict().items():
        weight.fill_(1.0 if weight.ndim == 1 else 0.0)
        part = before[name]
        if weight.shape == (WIDE,):
            part = part * math.sqrt(OLD / WIDE)
        weight[tuple(slice(size) for size in part.shape)] = part


def _gain(heads: Heads) -> float:
    """The logit of a key that points where the query does."""
    norms = heads.attention.q_norm.weight * heads.attention.k_norm.weight
    return math.sqrt(heads.size) * norms[[A, B]].min().item()


def _embeddings(
    old: Reranker, model: Reranker, table: Tensor, tokenizer: Tokenizer, gain: float
) -> None:
    rows = model.embed_tokens.weight
    length = old.embed_tokens.weight.norm(dim=1) * SHORT
    spoken = speaks(tokenizer)
    spoken[[old.shape.yes, old.shape.no]] = False  # their rows are the readout
    size = table.norm(dim=1)
    rarest = size[spoken].quantile(0.98)
    rarity = (size / rarest).clamp(0.02, 1.2)
    share = (SHARE + rarity.log() / gain).clamp(max=0.948)
    rows[:, WEIGHT] = torch.where(spoken, _level(share), -10.0) * WEIGHT_SIZE
    rows[:, ONE] = ONE_SIZE
    left = (length.square() - rows[:, WEIGHT].square() - ONE_SIZE**2).clamp(min=1e-3).sqrt()
    rows[:, MEANING] = torch.where(spoken, left, 0.0)[:, None] * table / size[:, None]
    marks = {
        "<document": (DOC, SUM_QUERY),
        "<query": (QUERY, REST),
        "<|im_start|>": (REST,),
        "assistant": (SUM_DOC,),
        "<think>": (),
    }
    rows[~spoken, ONE] = (left.square() + ONE_SIZE**2).sqrt()[~spoken]
    for text, lanes in marks.items():
        token = tokenizer.token_to_id(text)
        rows[token, ONE] = ONE_SIZE
        rows[token, list(lanes)] = left[token] / math.sqrt(max(1, len(lanes)))
    rows[tokenizer.token_to_id("<think>"), THINK] = STEADY


def _level(share: Tensor) -> Tensor:
    """Which `t` gives dimension A this share of a key (A, B, C) = (t, t - STRANGE, 1)."""
    levels = torch.linspace(0, STRANGE + 1 / STRANGE, 2_000)
    shares = levels / (levels.square() + (levels - STRANGE).square() + 1).sqrt()
    return levels[torch.searchsorted(shares, share.contiguous()).clamp(max=len(levels) - 1)]


def _segments(model: Reranker, heads: Heads, tokenizer: Tokenizer) -> None:
    """Each token looks at `<document` if it has seen it, else at `<query`."""
    heads.k(KEY)[C, DOC] = 8
    heads.k(KEY)[C, QUERY] = 4
    heads.k(KEY)[D, QUERY] = 4
    heads.k(KEY)[D, ONE] = 1
    heads.q(FIRST)[C, ONE] = heads.q(SECOND)[C, ONE] = 1
    rows = model.embed_tokens.weight
    for lane, text in ((DOC, "<document"), (QUERY, "<query")):
        row = rows[tokenizer.token_to_id(text)]
        seen = row[lane] / row.square().mean().sqrt()
        heads.v(KEY)[lane - DOC, lane] = 1
        heads.o(FIRST)[lane, lane - DOC] = FLAG / seen


def _pool(heads: Heads) -> None:
    """A key has A for the document's sum and B for the question's; to rest on, `<query`."""
    for dimension, flag in ((A, DOC), (B, QUERY)):
        heads.k(KEY)[dimension, WEIGHT] = 1 / WEIGHT_SIZE
        heads.k(KEY)[dimension, flag] = STRANGE / FLAG
        heads.k(KEY)[dimension, ONE] = -STRANGE / ONE_SIZE
    heads.k(KEY)[C, ONE] = 1 / ONE_SIZE
    heads.k(KEY)[D, REST] = 1000
    for head, dimension, mark in ((FIRST, A, SUM_DOC), (SECOND, B, SUM_QUERY)):
        heads.q(head)[D, ONE] = 1
        heads.q(head)[dimension, mark] = 50
        heads.o(head)[MEANING, :SIZE] = 300 * torch.eye(SIZE)
    heads.v(KEY)[:SIZE, MEANING] = torch.eye(SIZE)


def _compare(model: Reranker, heads: Heads) -> None:
    for dimension, mark in ((A, SUM_DOC), (B, SUM_QUERY), (D, REST)):
        heads.k(KEY)[dimension, mark] = 60
    heads.k(KEY)[C, ONE] = 1 / ONE_SIZE
    heads.v(KEY)[:SIZE, MEANING] = torch.eye(SIZE)
    for head, dimension in ((FIRST, A), (SECOND, B)):
        heads.q(head)[dimension, THINK] = 1
        heads.q(head)[D, ONE] = 1
        heads.o(head)[MEANING, :SIZE] = UNIT * torch.eye(SIZE)
    mlp, first = model.layers[2].mlp, model.shape.intermediate_size - SIZE - 1
    # silu(x) is about x/2 near zero: gate times up is a square.
    mlp.gate_proj.weight[first:-1, MEANING] = 0.1 * torch.eye(SIZE)
    mlp.up_proj.weight[first:-1, MEANING] = torch.eye(SIZE)
    mlp.down_proj.weight[MATCH, first:-1] = 30
    # The squares of two unit vectors with the usual cosine, as a share of the constant's.
    usual = (2 + 2 * USUAL) * WIDE * (UNIT / STEADY) ** 2
    mlp.gate_proj.weight[-1, THINK] = mlp.up_proj.weight[-1, THINK] = 1
    mlp.down_proj.weight[MATCH, -1] = -30 * 0.05 * usual


def _read(heads: Heads) -> None:
    heads.k(KEY)[A, THINK] = 1
    heads.k(KEY)[D, REST] = 60
    heads.k(KEY)[C, ONE] = 1 / ONE_SIZE
    heads.q(FIRST)[A, ONE] = heads.q(SECOND)[D, ONE] = 1
    heads.q(FIRST)[D, ONE] = 0.45
    heads.v(KEY)[0, MATCH] = 1
    heads.o(FIRST)[MATCH, 0] = 0.5


@torch.no_grad()
def prune(model: Reranker, batches: list[Batch], size: int = 192) -> Reranker:
    """Keep the hidden units of each MLP that write most; those of the squares always."""
    written = [torch.zeros(model.shape.intermediate_size) for _ in model.layers]
    hooks = [
        layer.mlp.down_proj.register_forward_hook(
            lambda _module, inputs, _output, sums=sums: _add(sums, inputs[0].abs().mean(0))
        )
        for layer, sums in zip(model.layers, written, strict=True)
    ]
    for some in batches:
        model(some)
    for hook in hooks:
        hook.remove()
    smaller = Reranker(replace(model.shape, intermediate_size=size))
    weights = model.state_dict()
    for number, (layer, sums) in enumerate(zip(model.layers, written, strict=True)):
        usefulness = sums * layer.mlp.down_proj.weight.norm(dim=0)
        if number == 2:
            usefulness[-SIZE - 1 :] = torch.inf
        kept = usefulness.argsort(descending=True)[:size].sort().values
        for name in ("gate_proj", "up_proj", "down_proj"):
            key = f"layers.{number}.mlp.{name}.weight"
            weights[key] = weights[key][:, kept] if name == "down_proj" else weights[key][kept]
    smaller.load_state_dict(weights)
    return smaller


def _add(sums: Tensor, more: Tensor) -> None:
    sums += more


def features(model: Reranker, batches: list[Batch]) -> Tensor:
    """(questions, documents, lanes): what the readout reads."""
    kept: list[Tensor] = []
    hook = model.norm.register_forward_hook(
        lambda _module, _inputs, output: kept.append(output.detach())
    )
    with torch.no_grad():
        for some in batches:
            model(some)
    hook.remove()
    return torch.cat(kept).view(-1, batches[0].each, model.shape.hidden_size)


def fit_readout(model: Reranker, batches: list[Batch]) -> float:
    """Weigh the cosine against the old score; the share of questions whose passage is first."""
    x = features(model, batches)
    rows, yes, no = model.embed_tokens.weight, model.shape.yes, model.shape.no
    before = (rows[yes] - rows[no]).detach()
    free = torch.zeros(model.shape.hidden_size)
    free[SCORES[0] : OLD] = free[[ONE, MATCH]] = 1
    change = torch.zeros(len(free), requires_grad=True)
    scale = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [change, scale], max_iter=150, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(x @ (before * scale + change * free), CAUTION) + 1e-3 * change.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        after = before * scale + change * free
        middle = (rows[yes] + rows[no]) / 2
        rows[yes], rows[no] = middle + after / 2, middle - after / 2
        return ((x @ after).argmax(1) == 0).float().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = vocabulary.load()
    sampler = iter(Sampler(pairs_file.load(), tokenizer, seed=3, bare=0))
    batches = [next(sampler) for _ in range(100)]
    model = prune(widen(restore(LEXICAL), table_file.load(), tokenizer), batches[:20])
    share = fit_readout(model, batches)
    save(model.shape, model.state_dict(), FINAL)
    print(f"right first in {share:.3f} of the fitting sample")


if __name__ == "__main__":
    main()
