"""A passage with its questions, apart from what reads the sources."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A passage and the questions it answers.

    Attributes:
        source: package it comes from, or `own`.
        language: `en` or `zh`, of the passage.
        queries: any of them may be asked.
        passage: plain text.
    """

    source: str
    language: str
    queries: list[str]
    passage: str


def chinese_piece(text: str, rng: random.Random) -> str:
    length = rng.randint(3, 7)
    start = rng.randint(0, max(0, len(text) - length))
    return re.sub(r"[，。；：、“”（）\s]", "", text[start : start + length]) or text[:length]
