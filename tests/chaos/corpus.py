"""What is asked: questions and documents of real words, the same in every run."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

# A score as the wire gives it may differ by so much, in nats, from the same pair's in another
# batch: sums in float32 are rounded in another order. The contract tests hold engines to it.
TOLERANCE = 1e-4

INSTRUCTIONS = (None, "Find the passages that take something away from the reader")
QUERIES = (
    "Who pays when the software does harm?",
    "May I sell a changed copy?",
    "什么时候许可终止？",
    "patent claims of a contributor",
    "Where must the notices stand?",
    "What is a derivative work?",
)


def _documents(count: int) -> tuple[str, ...]:
    words = re.findall(r"[A-Za-z]+[,.;]?", (ROOT / "LICENSE").read_text())
    chance = random.Random(7)
    lengths = [chance.choice((4, 12, 30, 60, 110)) for _ in range(count)]
    starts = chance.sample(range(len(words) - 110), count)
    return tuple(
        " ".join(words[start : start + length])
        for start, length in zip(starts, lengths, strict=True)
    )


DOCUMENTS = _documents(150)


@dataclass(frozen=True)
class Question:
    query: str
    instruction: str | None


QUESTIONS = tuple(Question(query, said) for query in QUERIES for said in INSTRUCTIONS)

# One question and one document, by their places here.
Pair = tuple[int, int]

# The logit of every pair when nothing else happened.
Calm = dict[Pair, float]


@dataclass(frozen=True)
class Wanted:
    """One well-formed request, whatever dialect it is put into.

    Attributes:
        pairs: in the order of the request; an answer's indices are places in it.
        top: results that are wanted; None is all.
        logits: raw ones, in nats, rather than scores.
        extras: what rankd takes in every dialect: priority, cache, timeout_ms, partial.
    """

    pairs: tuple[Pair, ...]
    top: int | None = None
    logits: bool = False
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        return QUESTIONS[self.pairs[0][0]]

    @property
    def texts(self) -> list[str]:
        return [DOCUMENTS[document] for _, document in self.pairs]
