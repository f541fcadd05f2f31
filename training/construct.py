"""The starting weights, built by hand: soft lexical matching before anything is learnt.

From random weights this model stays at chance for longer than we can train it. So it starts as a
small machine, and training improves every part of it:

    layer 0  each token learns whether it stands in the question or in the document,
             and what the token before it was;
    layer 1  a document token looks for itself in the question (alone, and together with the token
             before it); finding itself outweighs its own key, so the found flag is soft but sharp;
    layer 2  the last token pools what was found, weighted by rarity; `</think>` pools the question;
    layer 3  the last token compares the two pools (a cosine, thanks to QK-norm) and counts again.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from model import Attention, Batch, Reranker, Shape

# Lanes of the residual stream (160 wide).
ID, PREV = slice(0, 80), slice(80, 120)
ONE, IDF, IN_DOC_MARK, QUERY_MARK, THINK_MARK, QUERY, DOC, FOUND, RARE_FOUND, PHRASE = range(
    120, 130
)
SCORES = range(130, 140)
LANES = slice(120, 141)  # all of these single numbers; no noise is written there
FILL = 140  # a second constant, so that norms differ less between tokens

ONE_SIZE, ID_NORM = (
    0.6,
    9.0,
)  # size of the constant; norm of an identity after the input norm, about
WORD_SHARE, GRAM_SHARE, OWN_SHARE = 0.7, 0.6, 0.2  # what a token's identity is made of
FAST = range(4)  # rotary pairs that tell neighbours apart
SLOW = torch.tensor([*range(9, 30), *range(41, 62)])  # dimensions that hardly turn within a prompt
A, B, C, D = 28, 29, 30, 31  # dimensions that do not turn: one number each


@dataclass(frozen=True, slots=True)
class Heads:
    """Slices of one layer's attention weights by head; writing to them writes the layer."""

    attention: Attention
    size: int

    def q(self, head: int) -> Tensor:
        return self.attention.q_proj.weight[head * self.size : (head + 1) * self.size]

    def k(self, head: int) -> Tensor:
        return self.attention.k_proj.weight[head * self.size : (head + 1) * self.size]

    def v(self, head: int) -> Tensor:
        return self.attention.v_proj.weight[head * self.size : (head + 1) * self.size]

    def o(self, head: int) -> Tensor:
        return self.attention.o_proj.weight[:, head * self.size : (head + 1) * self.size]


@torch.no_grad()
def construct(
    shape: Shape, tokenizer: Tokenizer, frequency: Tensor, passages: int, seed: int = 0
) -> Reranker:
    noise = torch.Generator().manual_seed(seed)
    model = Reranker(shape)
    _small_noise(model, noise)
    _embeddings(model, tokenizer, frequency, passages, noise)
    layers = [Heads(layer.self_attn, shape.head_dim) for layer in model.layers]
    for heads, gain in zip(layers, (2.0, 2.6, 1.7, 1.9), strict=True):
        heads.attention.q_norm.weight.fill_(gain)
        heads.attention.k_norm.weight.fill_(gain)
    _previous_token(layers[0], model.frequencies, noise)
    _segments(layers[0])
    _match(layers[1], noise)
    _rarity(model)
    _pool(layers[2], noise)
    _compare(layers[3])
    return model


def _small_noise(model: Reranker, noise: torch.Generator) -> None:
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        size = 0.0005 if "down_proj" in name else 0.004 if "o_proj" in name else 0.02
        # The MLPs change nothing yet, but their inputs need a normal size to learn from.
        size = 0.5 / math.sqrt(weight.shape[1]) if "gate" in name or "up_proj" in name else size
        weight.copy_(torch.randn(weight.shape, generator=noise) * size)
        if "o_proj" in name or "down_proj" in name:
            weight[LANES] = 0


def _embeddings(
    model: Reranker, tokenizer: Tokenizer, frequency: Tensor, passages: int, noise: torch.Generator
) -> None:
    table = model.embed_tokens.weight
    table.copy_(torch.randn(table.shape, generator=noise) * 0.01)
    table[:, LANES] = 0
    table[:, ID] = identities([tokenizer.id_to_token(token) for token in range(len(table))], noise)
    table[:, ONE], table[:, FILL] = ONE_SIZE, 0.4
    rarity = ((torch.log((passages + 1) / (frequency + 1)) / 9).clamp(0, 1) - 0.15).clamp(
        min=0
    ) / 0.85
    table[:, IDF] = torch.where(frequency > 0, rarity, 0.9).float()
    marks = set("ĊĠ" + string.punctuation) | {"，", "。"}
    for token in range(len(table)):
        text = tokenizer.id_to_token(token)
        if (
            text.startswith(("<|", "<think", "</think", "<query", "<document", "<instruct"))
            or set(text) <= marks
            or text == "assistant"
        ):
            table[token, ID] *= 0.3
            table[token, IDF] = 0
    for text, mark in (
        ("<document", IN_DOC_MARK),
        ("<query", QUERY_MARK),
        ("</think>", THINK_MARK),
    ):
        table[tokenizer.token_to_id(text), mark] = 1
    yes, no = model.shape.yes, model.shape.no
    table[no] = table[yes]
    table[yes, SCORES[0]], table[no, SCORES[0]] = 0.5, -0.5


def identities(tokens: list[str], noise: torch.Generator, size: int = 80) -> Tensor:
    """A direction for each token: near each other for "path", " path" and " paths", else at random.

    As in fastText, a word is the sum of its pieces; a token is its word, with or without the space
    before it, and a little of its own.
    """
    drawn: dict[str, Tensor] = {}

    def draw(name: str) -> Tensor:
        if name not in drawn:
            drawn[name] = F.normalize(torch.randn(size, generator=noise), dim=0)
        return drawn[name]

    rows = []
    for token in tokens:
        word = token.removeprefix("Ġ")
        row = WORD_SHARE * draw(f"word {word}") + OWN_SHARE * draw(f"token {token}")
        if grams := _grams(word):
            row = row + GRAM_SHARE * F.normalize(
                torch.stack([draw(gram) for gram in grams]).sum(0), dim=0
            )
        rows.append(F.normalize(row, dim=0))
    return torch.stack(rows)


def _grams(word: str) -> list[str]:
    if len(word) < 3 or not word.isascii() or not word.isalpha():
        return []
    edged = f"^{word}"  # beginnings matter more than endings
    return [edged[start : start + n] for n in (3, 4, 5) for start in range(len(edged) - n + 1)]


def _previous_token(heads: Heads, frequencies: Tensor, noise: torch.Generator) -> None:
    """Query head 0 looks one token back and writes what it saw into PREV."""
    for pair in FAST:
        turn = frequencies[pair].item()
        heads.k(0)[pair, ONE] += 1
        heads.q(0)[pair, ONE] += math.cos(turn)
        heads.q(0)[pair + 32, ONE] -= math.sin(turn)
    heads.v(0)[:40, ID] += _frame(80, noise)[:40] * math.sqrt(2)
    heads.o(0)[PREV, :40] += torch.eye(40) * 0.7 / ID_NORM


def _segments(heads: Heads) -> None:
    """Query head 2 finds `<query` until `<document` stands in sight, then that."""
    heads.k(1)[C, IN_DOC_MARK] += 4
    heads.k(1)[C, QUERY_MARK] += 3.2
    heads.k(1)[D, QUERY_MARK] += 2.4
    heads.k(1)[D, ONE] += 0.3  # keys of all other tokens point here, away from C
    heads.q(2)[C, ONE] += 1
    heads.v(1)[0, QUERY_MARK] += 1
    heads.v(1)[1, IN_DOC_MARK] += 1
    heads.o(2)[QUERY, 0] += 1 / 8
    heads.o(2)[DOC, 1] += 1 / 8


def _match(heads: Heads, noise: torch.Generator) -> None:
    """Is this token in the question? A token's own key is the alternative that it outweighs."""
    lanes, frame = len(SLOW), _frame(80, noise)
    single = frame[:lanes] * math.sqrt(80 / lanes)
    half = lanes // 2
    pair = torch.zeros(lanes, 120)
    pair[:half, ID] = frame[lanes - half :][:half] * math.sqrt(80 / half)
    pair[half:, PREV] = _frame(40, noise)[: lanes - half] * math.sqrt(40 / half) * 1.3
    for key, projection in ((0, single), (1, pair)):
        width = projection.shape[1]
        heads.k(key)[SLOW, :width] += projection
        heads.k(key)[D, QUERY] += 1
        heads.v(key)[0, QUERY] += 1
        # The even head decides (its pull to the question is less than a token's own key),
        # the odd one is a softer copy to learn with.
        for head, sharp, pull in ((2 * key, 1.0, 0.75), (2 * key + 1, 0.5, 1.0)):
            heads.q(head)[SLOW, :width] += projection * sharp
            heads.q(head)[D, ONE] += pull / ONE_SIZE
    heads.o(0)[FOUND, 0] += 1 / 6.5
    heads.o(2)[PHRASE, 0] += 1 / 6.5


def _rarity(model: Reranker) -> None:
    """Layer 1's first hidden unit: found and rare."""
    mlp = model.layers[1].mlp
    mlp.gate_proj.weight[0] = mlp.up_proj.weight[0] = mlp.down_proj.weight[:, 0] = 0
    mlp.gate_proj.weight[0, FOUND] = 4
    mlp.gate_proj.weight[
        0, ONE
    ] = -3.3  # half found is not found: a hundred small noises would drown one find
    mlp.up_proj.weight[0, IDF] = 1
    mlp.down_proj.weight[RARE_FOUND, 0] = 0.035


def _pool(heads: Heads, noise: torch.Generator) -> None:
    """The last token looks over the document, four ways.

    A logit here is 8 * gain**2 * cos: a key's share of dimension A or B, against C, is its weight.
    Two heads need a token to rest on when nothing was found; each has its own.
    """
    # Keys of head 0. A: found and rare, `<query` is where to rest. B: any document token, and
    # `<document` as heavy as thirty of them: a sum over the document that length alone cannot win.
    heads.k(0)[A, RARE_FOUND] += 2
    heads.k(0)[A, QUERY] -= 3
    heads.k(0)[A, QUERY_MARK] += 6.5
    heads.k(0)[B, QUERY] -= 1.5
    heads.k(0)[B, QUERY_MARK] += 1.9
    heads.k(0)[B, DOC] += 0.82
    heads.k(0)[B, IN_DOC_MARK] += 0.83
    heads.k(0)[C, ONE] += 1.5
    heads.v(0)[0, RARE_FOUND] += 4
    heads.v(0)[1, PHRASE] += 4
    heads.q(0)[A, ONE] += 1
    heads.q(1)[B, ONE] += 0.9
    heads.q(1)[A, ONE] += 0.43  # a found token has less of B by the norm; this makes it good
    heads.o(0)[SCORES[0], 0] += 0.06
    heads.o(1)[SCORES[1], 0] += 2
    heads.o(0)[SCORES[6], 1] += 0.06
    heads.o(1)[SCORES[7], 1] += 2
    # Keys of head 1. A: found document tokens, B: rare question tokens; what they are goes on.
    heads.k(1)[A, RARE_FOUND] += 3
    heads.k(1)[A, QUERY] -= 3
    heads.k(1)[B, QUERY] += 0.8
    heads.k(1)[B, IDF] += 0.8
    heads.k(1)[B, DOC] -= 1
    heads.k(1)[C, ONE] += 1.5
    heads.v(1)[:40, ID] += _frame(80, noise)[:40] * math.sqrt(2)
    heads.q(2)[B, ONE] += 1
    heads.q(3)[A, ONE] += 1
    heads.q(3)[D, ONE] += (
        1.5  # nothing there: a softer look, so that the rarest word is not the only one
    )
    heads.o(2)[80:120, :40] += torch.eye(40) * 0.6
    heads.o(3)[:40, :40] += torch.eye(40) * 0.6


def _compare(heads: Heads) -> None:
    # The pools are 40 wide: 80:120 of `</think>` is the question's, 0:40 what the document had.
    lanes = SLOW[torch.tensor([*range(1, 21), *range(22, 42)])]
    heads.q(0)[lanes, :40] += torch.eye(40)
    heads.k(0)[lanes, 80:120] += torch.eye(40)
    heads.q(0)[D, ONE] += 2.5
    heads.k(0)[D, THINK_MARK] += 1
    heads.v(0)[0, THINK_MARK] += 1
    heads.o(0)[SCORES[2], 0] += 0.3
    # A: the sum again, with a heavier rest; B: how rare the question's words are.
    heads.k(1)[A, QUERY] -= 1.5
    heads.k(1)[A, DOC] += 0.82
    heads.k(1)[A, IN_DOC_MARK] += 1.7
    heads.k(1)[B, QUERY] += 1.5
    heads.k(1)[B, IDF] += 1.5
    heads.k(1)[B, DOC] -= 1.5
    heads.k(1)[C, ONE] += 1.5
    heads.v(1)[0, RARE_FOUND] += 4
    heads.v(1)[1, QUERY] += 1
    heads.v(1)[2, IDF] += 1
    heads.v(1)[3, PHRASE] += 4
    heads.q(2)[A, ONE] += 1
    heads.q(3)[B, ONE] += 1
    heads.o(2)[SCORES[3], 0] += 5
    heads.o(3)[SCORES[4], 1] += 0.5
    heads.o(3)[SCORES[5], 2] += 0.5
    heads.o(2)[SCORES[8], 3] += 5


def _frame(size: int, noise: torch.Generator) -> Tensor:
    """Random orthonormal rows."""
    return torch.linalg.qr(torch.randn(size, size, generator=noise))[0]


def fit_readout(model: Reranker, batches: list[Batch], rounds: int = 80) -> float:
    """Choose the yes and no rows to read the machine best; the share ranked right."""
    features: list[Tensor] = []
    hook = model.norm.register_forward_hook(
        lambda _module, _inputs, output: features.append(output.detach().clone())
    )
    with torch.no_grad():
        for some in batches:
            model(some)
    hook.remove()
    lanes = torch.zeros(model.shape.hidden_size)
    lanes[:120] = lanes[SCORES[0] :] = 1
    x, each = torch.cat(features) * lanes, batches[0].each
    reading = torch.zeros(model.shape.hidden_size, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [reading], max_iter=rounds, history_size=20, line_search_fn="strong_wolfe"
    )
    right = torch.zeros(len(x) // each, each)
    right[:, 0] = 1

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = (x @ reading).view(-1, each)
        weight = torch.where(right > 0, 0.6 * (each - 1), 1.0)
        loss = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
        loss = (
            loss
            + F.binary_cross_entropy_with_logits(scores, right, weight=weight)
            + 3e-4 * reading.square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        table, yes, no = model.embed_tokens.weight, model.shape.yes, model.shape.no
        middle = (table[yes] + table[no]) / 2
        middle[lanes > 0] = 0
        table[yes], table[no] = middle + reading * lanes / 2, middle - reading * lanes / 2
        return ((x @ reading).view(-1, each).argmax(1) == 0).float().mean().item()
