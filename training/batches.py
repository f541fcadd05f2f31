"""What one training step sees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer

from model import Batch, batch
from pairs import Pairs, Question
from prompt import INSTRUCTION, SUFFIX, head

OTHER_INSTRUCTIONS = (
    "Given a question, retrieve passages that answer the question",
    "Find the text that matches the query",
    "Given a query, retrieve relevant documents",
    "判断文档是否与查询相关",
    "Retrieve semantically similar text",
)
# How much of a passage is kept, in tokens, and how often. Short ones are cheap, and most lessons
# are in them; without long ones the model never says yes to a long passage.
KEPT = ((64, 0.25), (112, 0.4), (200, 0.35))
SHARES = {"own": 0.05, "wordnet-base": 0.2, "zh": 0.15, "manuals": 0.6}


@dataclass(frozen=True, slots=True)
class Group:
    """A question with its documents: the right one, hard ones, strangers."""

    question: list[int]
    documents: list[list[int]]


class Sampler:
    """An endless supply of batches of about the same cost.

    Args:
        each: documents per question: 1 right, 2 or 3 hard, the rest strangers of any length, half
            of them from the same source: a match must win, not length, topic or style.
        budget: tokens in a batch, about.
        bare: share of batches without the constant head, which teaches little and costs attention.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: Tokenizer,
        seed: int,
        each: int = 8,
        budget: int = 6000,
        bare: float = 0.5,
    ) -> None:
        self.pairs, self.each, self.budget, self.bare = pairs, each, budget, bare
        self.rng = random.Random(seed)
        self.suffix = tokenizer.encode(SUFFIX).ids
        texts = [INSTRUCTION] * 6 + list(OTHER_INSTRUCTIONS)
        self.heads = [tokenizer.encode(head(text)).ids for text in texts]
        self.by_kind: dict[str, list[Question]] = {kind: [] for kind in SHARES}
        for asked in pairs.questions:
            self.by_kind[_kind(pairs.sources[asked.right])].append(asked)
        self.like: dict[str, list[int]] = {}  # passages of a source, and of a kind
        for place, source in enumerate(pairs.sources):
            self.like.setdefault(source, []).append(place)
            self.like.setdefault(_kind(source), []).append(place)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from self._batches([self._group() for _ in range(160)])

    def _group(self) -> Group:
        kind = self.rng.choices(list(SHARES), list(SHARES.values()))[0]
        asked = self.rng.choice(self.by_kind[kind])
        source = self.pairs.sources[asked.right]
        hard = self.rng.sample(asked.hard, min(self.rng.choice((2, 3)), len(asked.hard)))
        kept = self.rng.choices([k for k, _ in KEPT], [share for _, share in KEPT])[0]
        places = [asked.right, *hard]
        while len(places) < self.each:
            stranger = self.rng.choice(self.like[self.rng.choice((source, kind))])
            if stranger not in places:
                places.append(stranger)
        return Group(asked.ids, [self.pairs.passages[place][:kept] for place in places])

    def _batches(self, groups: list[Group]) -> Iterator[Batch]:
        """Neighbours in length go together, so that little is padded."""
        groups.sort(key=lambda group: max(map(len, group.documents)) + self.rng.random() * 8)
        packs: list[list[Group]] = [[]]
        for group in groups:
            longest = max(map(len, group.documents)) + len(self.suffix)
            if len(packs[-1]) >= 3 and (len(packs[-1]) + 1) * longest * self.each > self.budget:
                packs.append([])
            packs[-1].append(group)
        self.rng.shuffle(packs)
        yield from (self._batch(pack) for pack in packs if len(pack) >= 3)

    def _batch(self, groups: list[Group]) -> Batch:
        chosen = self.rng.choice(self.heads)
        chosen = chosen[-2:] if self.rng.random() < self.bare else chosen
        documents = [document + self.suffix for group in groups for document in group.documents]
        return batch(chosen, [group.question for group in groups], documents)


def _kind(source: str) -> str:
    name, language = source.split()
    return (
        name
        if name in SHARES
        else "zh"
        if language == "zh" or name == "unicode-data"
        else "manuals"
    )
