"""The table of meanings: 126 numbers for each token, whose rarity-weighted sums compare texts.

It begins as the principal components of the teacher's vectors of single tokens. Then the cosines of
questions and passages, as sums over the table, are drawn to the teacher's own cosines. The teacher
is English. Chinese tokens begin at random, and the right passage is their only lesson.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

import pairs as pairs_file
import teacher
import vocabulary
from construct import SIZE
from pairs import Pairs
from prompt import question
from sources import DATA

log = logging.getLogger("table")
TABLE = DATA / "table.pt"
STEPS, BATCH, CHINESE = 3_000, 384, 64  # questions in a step, and how many of them are Chinese
SHARP = 20.0  # the temperature of cosines: a difference of .05 is one logit
RIGHT_ZH, WRONG_ZH = 0.7, 0.1  # what the teacher would say of Chinese pairs, if it could read them
LONGEST = 160


def first_table(tokens: Tensor, frequency: Tensor, texts: int, tokenizer: Tokenizer) -> Tensor:
    """Principal components, partly whitened, each row as long as its token is rare."""
    usual = (frequency + 1).sqrt()
    centred = tokens - (usual / usual.sum()) @ tokens
    _, sizes, axes = torch.linalg.svd(centred * (usual / usual.sum()).sqrt()[:, None])
    rows = F.normalize(centred @ axes[:SIZE].T / (sizes[:SIZE] / sizes[0]) ** 0.35, dim=1)
    noise = torch.Generator().manual_seed(0)
    drawn = F.normalize(torch.randn(rows.shape, generator=noise), dim=1)
    english = torch.tensor([tokenizer.decode([token]).isascii() for token in range(len(rows))])
    rarity = (torch.log((texts + 1) / (frequency + 1)) / 9).clamp(0, 1) - 0.15
    weight = torch.where(vocabulary.words(tokenizer), rarity.clamp(min=0.01), 0.003)
    return torch.where(english[:, None], rows, drawn) * weight[:, None]


def sums(table: Tensor, rows: Sequence[list[int]]) -> Tensor:
    """Unit vectors of texts."""
    starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
    tokens = torch.tensor([token for row in rows for token in row])
    return F.normalize(F.embedding_bag(tokens, table, starts, mode="sum"), dim=1)


class Lessons:
    """Questions, their passages and one hard wrong passage each; the cosines they should have."""

    def __init__(self, pairs: Pairs, taught: teacher.Lessons, tokenizer: Tokenizer) -> None:
        tail = len(tokenizer.encode(question("x")).ids) - 1
        self.pairs, self.rng = pairs, np.random.default_rng(0)
        self.questions = [asked.ids[:-tail] or [0] for asked in pairs.questions]
        self.asked = taught.asked
        self.asked_vectors = torch.tensor(taught.asked_vectors).float()
        self.passage_vectors = torch.tensor(taught.passage_vectors).float()
        self.row = {int(place): row for row, place in enumerate(taught.passages)}
        self.chinese = np.array(
            [n for n, q in enumerate(pairs.questions) if pairs.sources[q.right].endswith(" zh")]
        )

    def draw(self) -> tuple[list[list[int]], list[list[int]], Tensor, Tensor]:
        """Token rows of questions and passages, target cosines, and the right passage of each."""
        taught = self.rng.choice(len(self.asked), BATCH - CHINESE, replace=False)
        chinese = self.rng.choice(self.chinese, CHINESE, replace=False)
        numbers = [*self.asked[taught], *chinese]
        right = [self.pairs.questions[n].right for n in numbers]
        hard = [self._hard(n) for n in numbers]
        places = right + hard
        english = len(taught)
        target = torch.full((len(numbers), len(places)), WRONG_ZH)
        known = [column for column, place in enumerate(places) if place in self.row]
        vectors = self.passage_vectors[[self.row[places[column]] for column in known]]
        target[:english, known] = self.asked_vectors[taught] @ vectors.T
        same = torch.tensor(right)[:, None] == torch.tensor(places)[None]
        target[english:][same[english:]] = RIGHT_ZH
        rows = [self.pairs.passages[place][:LONGEST] for place in places]
        return [self.questions[n] for n in numbers], rows, target, same

    def _hard(self, number: int) -> int:
        asked = self.pairs.questions[number]
        known = [place for place in asked.hard if place in self.row]
        return int(self.rng.choice(known or [asked.right]))


def train(table: Tensor, lessons: Lessons) -> Tensor:
    table = table.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], betas=(0.9, 0.98))
    loss_sum = 0.0
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (1 - step / STEPS) / 0.6 + 0.02)
        questions, passages, target, right = lessons.draw()
        cosines = sums(table, questions) @ sums(table, passages).T
        wanted = F.softmax(target * SHARP + right, dim=1)  # a right passage is a little righter
        loss = F.kl_div(F.log_softmax(cosines * SHARP, 1), wanted, reduction="batchmean")
        loss = loss + SHARP * (cosines - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
        if step % 250 == 249:
            log.info("%5d loss %.3f", step + 1, loss_sum / 250)
            loss_sum = 0.0
    return table.detach()


def write() -> None:
    pairs, taught, tokenizer = pairs_file.load(), teacher.load(), vocabulary.load()
    frequency = torch.tensor(pairs.frequency).float()
    texts = len(pairs.passages) + len(pairs.questions)
    start = first_table(torch.tensor(taught.tokens).float(), frequency, texts, tokenizer)
    torch.save(train(start, Lessons(pairs, taught, tokenizer)), TABLE)


def load() -> Tensor:
    return torch.load(TABLE)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    write()
