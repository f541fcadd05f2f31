"""Queries and documents of the chaos test, the same in every run."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

# Nats by which the logit of a pair may depend on its batch: float32 sums are rounded in another
# order. The engine contract tests check the same bound.
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
    rng = random.Random(7)
    lengths = [rng.choice((4, 12, 30, 60, 110)) for _ in range(count)]
    starts = rng.sample(range(len(words) - 110), count)
    return tuple(
        " ".join(words[start : start + length])
        for start, length in zip(starts, lengths, strict=True)
    )


DOCUMENTS = _documents(150)


@dataclass(frozen=True)
class InstructedQuery:
    query: str
    instruction: str | None


INSTRUCTED_QUERIES = tuple(
    InstructedQuery(query, text) for query in QUERIES for text in INSTRUCTIONS
)

# Indices into INSTRUCTED_QUERIES and DOCUMENTS.
Pair = tuple[int, int]

# The logit of every pair, measured before any fault.
Baseline = dict[Pair, float]


@dataclass(frozen=True)
class ChaosRequest:
    """One valid request, independent of the API format.

    Attributes:
        pairs: in request order; the indices of an answer refer to it.
        top: how many results to ask for; None: all.
        logits: ask for logits, in nats, instead of scores.
        extras: fields that rankd takes in every dialect: priority, cache, timeout_ms, partial.
    """

    pairs: tuple[Pair, ...]
    top: int | None = None
    logits: bool = False
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def instructed_query(self) -> InstructedQuery:
        return INSTRUCTED_QUERIES[self.pairs[0][0]]

    @property
    def texts(self) -> list[str]:
        return [DOCUMENTS[document] for _, document in self.pairs]
