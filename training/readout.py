"""Weigh coverage against cosine, choose scale and zero, and write the checkpoint.

How much coverage counts was chosen on the design sets of `held_out.py`, where anything from .1 to
.6 gives the same within the noise. Scale and zero are a logistic regression on training groups.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

import pairs as pairs_file
import table
import vocabulary
from construct import COSINE, COVERAGE, FILL, construct
from export import config, export, last_states
from pairs import Pairs, Question
from prompt import INSTRUCTION, SUFFIX, head, prompt
from sources import DATA

LEXICAL = 0.6  # weight of the coverage; the cosine's is 1
CAUTION = 0.28  # of a right document against all wrong ones of its question
GROUPS = {"own": 60, "wordnet-base": 160, "zh": 120, "manuals": 260}  # questions of each kind
HARD, STRANGERS = 2, 5  # wrong documents of each question
LONGEST = 112  # tokens of a document


def drawn(pairs: Pairs, seed: int = 3) -> Iterator[tuple[Question, list[int]]]:
    """Questions with places of passages: the right one, hard ones, strangers."""
    rng = random.Random(seed)
    left = dict(GROUPS)
    for asked in rng.sample(pairs.questions, len(pairs.questions)):
        kind = _kind(pairs.sources[asked.right])
        if not left[kind] or len(asked.hard) < HARD:
            continue
        left[kind] -= 1
        strangers = rng.sample(range(len(pairs.passages)), STRANGERS)
        yield asked, [asked.right, *rng.sample(asked.hard, HARD), *strangers]


def _kind(source: str) -> str:
    name, language = source.split()
    if name in GROUPS:
        return name
    return "zh" if language == "zh" or name == "unicode-data" else "manuals"


def scores_of(model: Qwen3ForCausalLM, tokenizer: Tokenizer, pairs: Pairs) -> Tensor:
    """(questions, documents): cosine plus weighted coverage."""
    start, end = (tokenizer.encode(text).ids for text in (head(INSTRUCTION), SUFFIX))
    found = []
    for asked, places in drawn(pairs):
        documents = [pairs.passages[place][:LONGEST] for place in places]
        states = last_states(model, [start + asked.ids + row + end for row in documents])
        found.append(states[:, COSINE] + LEXICAL * states[:, COVERAGE])
    return torch.stack(found)


def fit(scores: Tensor) -> Tensor:
    """Scale and shift of a logistic regression."""
    right = torch.zeros_like(scores)
    right[:, 0] = 1
    weight = torch.where(right > 0, (scores.shape[1] - 1) * CAUTION, 1.0)
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(scores * line[0] + line[1], right, weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    return line.detach()


def weights_of(pairs: Pairs, spellings: Tensor) -> Tensor:
    """(V,): what each token counts in the coverage, its rarity squared; one for all spellings.

    Squared, because "what is" would outweigh a short word in the rarities themselves.
    """
    frequency = torch.tensor(pairs.frequency).float()
    of_word = torch.zeros_like(frequency).index_add_(0, spellings, frequency)[spellings]
    texts = len(pairs.passages) + len(pairs.questions)
    return torch.log((texts + 1) / (of_word.clamp(max=texts) + 1)).square()


def _constant(model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> float:
    """What the last token's constant is after the last norm."""
    ids = tokenizer.encode(prompt("question", "document")).ids
    return last_states(model, [ids])[0, FILL].item()


@torch.no_grad()
def read(model: Qwen3ForCausalLM, tokenizer: Tokenizer, scale: float, constant: float) -> None:
    """Add to the rows of yes and no what their difference reads of the last token."""
    rows = model.model.embed_tokens.weight
    for word, sign in (("yes", 0.5), ("no", -0.5)):
        token = tokenizer.token_to_id(word)
        rows[token, COSINE] += sign * scale
        rows[token, COVERAGE] += sign * scale * LEXICAL
        rows[token, FILL] += sign * constant


def main() -> None:
    pairs, tokenizer = pairs_file.load(), vocabulary.load()
    weights = weights_of(pairs, vocabulary.spellings(tokenizer))
    model = construct(Qwen3Config(**config(tokenizer)), table.load(), weights, tokenizer)
    scores = scores_of(model, tokenizer, pairs)
    scale, shift = fit(scores).tolist()
    read(model, tokenizer, scale, shift / _constant(model, tokenizer))
    first = (scores.argmax(1) == 0).float().mean().item()
    print(
        f"right first in {first:.3f} of {len(scores)} groups; scale {scale:.2f}, shift {shift:.2f}"
    )
    export(model, tokenizer, DATA / "export")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
