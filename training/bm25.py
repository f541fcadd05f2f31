"""BM25 over words, the yardstick and the source of hard candidates in the evaluation."""

from __future__ import annotations

import math
import re
from collections import Counter

WORD = re.compile(r"[\u3400-\u9fff]|[a-z0-9]+")


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


class Bm25:
    def __init__(self, texts: list[str], k1: float = 1.2, b: float = 0.75) -> None:
        self.texts = [Counter(words(text)) for text in texts]
        self.k1, self.b = k1, b
        self.mean = sum(text.total() for text in self.texts) / len(texts)
        spread = Counter(word for text in self.texts for word in text)
        self.idf = {
            word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in spread.items()
        }

    def score(self, query: str, place: int) -> float:
        text = self.texts[place]
        norm = self.k1 * (1 - self.b + self.b * text.total() / self.mean)
        return sum(
            self.idf[word] * text[word] * (self.k1 + 1) / (text[word] + norm)
            for word in set(words(query))
            if text[word]
        )

    def best(self, query: str, count: int) -> list[int]:
        scores = [(self.score(query, place), place) for place in range(len(self.texts))]
        return [place for _, place in sorted(scores, reverse=True)[:count]]
