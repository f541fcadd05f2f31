"""Records become token ids: questions, the passage of each, and passages that are nearly it."""

from __future__ import annotations

import json
import pickle
import random
import re
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from tokenizers import Tokenizer

import vocabulary
from prompt import question
from record import Record, chinese_piece
from sources import DATA, RECORDS

PAIRS = DATA / "pairs.pkl"
LONGEST_PASSAGE, LONGEST_QUESTION = 200, 48  # tokens
CHUNK = 12_000  # passages that compete with each other for being hard
HARD = 8


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its ids, the index of the right passage, the indexes of hard wrong ones."""

    ids: list[int]
    right: int
    hard: list[int]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Everything the training reads.

    Attributes:
        passages: token ids, with the leading space and without the suffix.
        sources: of each passage, as `source language`.
        questions: what is asked about them.
        frequency: for each token, the number of passages and questions that hold it. Words that
            only questions are full of ("how", "explain") are no more telling than "the".
    """

    passages: list[list[int]]
    sources: list[str]
    questions: list[Question]
    frequency: np.ndarray


def build(seed: int = 5) -> Pairs:
    rng, tokenizer = random.Random(seed), vocabulary.load()
    records = [Record(**json.loads(line)) for line in RECORDS.open(encoding="utf8")]
    rng.shuffle(records)
    encoded = tokenizer.encode_batch([f" {found.passage}" for found in records])
    passages = [row.ids[:LONGEST_PASSAGE] for row in encoded]
    asked = [
        (query, place) for place, found in enumerate(records) for query in _queries(found, rng)
    ]
    ids = [row.ids for row in tokenizer.encode_batch([question(query) for query, _ in asked])]
    frequency = np.zeros(tokenizer.get_vocab_size())
    for row in (*passages, *ids):
        frequency[list(set(row))] += 1
    hard = Miner(passages, frequency, len(tokenizer.encode(question("x")).ids) - 1).mine(
        ids, [place for _, place in asked], rng
    )
    questions = [
        Question(row, place, kept)
        for row, (query, place), found in zip(ids, asked, hard, strict=True)
        if len(row) <= LONGEST_QUESTION
        and (kept := [n for n in found if not _also_right(query, records[place], records[n])])
    ]
    rng.shuffle(questions)
    return Pairs(passages, [f"{r.source} {r.language}" for r in records], questions, frequency)


def _queries(found: Record, rng: random.Random) -> list[str]:
    """What is asked in training: written queries, and now and then words of the passage itself."""
    count = (
        len(found.queries) if found.source == "own" else 1 if found.source == "wordnet-base" else 2
    )
    queries = rng.sample(found.queries, min(count, len(found.queries)))
    if rng.random() < 0.3 and (piece := _piece(found, rng)):
        frames = (
            ["{}", "{}", "{}", "{}？", "什么是{}？"]
            if found.language == "zh"
            else ["{}", "{}", "{}", "what is {}?", "how to {}", "{}?"]
        )
        queries.append(rng.choice(frames).format(piece))
    return queries


def _piece(found: Record, rng: random.Random) -> str | None:
    if found.language == "zh":
        return chinese_piece(found.passage, rng)
    words = found.passage.split()
    if len(words) < 8:
        return None
    length = rng.randint(2, 7)
    start = rng.randint(0, len(words) - length)
    piece = words[start : start + length]
    if rng.random() < 0.4:
        piece = [word for word in piece if len(word) > 3 or rng.random() < 0.4]
    if rng.random() < 0.25:
        rng.shuffle(piece)
    return re.sub(r"[,.;:]$", "", " ".join(piece)) or None


def _also_right(query: str, right: Record, other: Record) -> bool:
    """Another passage under the same heading, or another sense of the word, is no wrong answer."""
    if {q.lower() for q in right.queries} & {q.lower() for q in other.queries}:
        return True
    subject = re.sub(
        r"^(what is|who was|who is|define|explain|where is|what does|tell me about) "
        r"| (meaning|mean)\??$|\?$",
        "",
        query.lower(),
    )
    return subject.strip() in other.passage[:40].lower() or right.passage[:40] == other.passage[:40]


class Miner:
    """BM25 over token ids, in chunks of passages."""

    def __init__(self, passages: list[list[int]], frequency: np.ndarray, tail: int) -> None:
        self.passages, self.tail = passages, tail
        self.idf = np.log(1 + len(passages) / (frequency + 0.5))
        self.idf[frequency > 0.05 * len(passages)] = 0

    def mine(
        self, questions: list[list[int]], right: list[int], rng: random.Random
    ) -> list[list[int]]:
        """For each question the passages that BM25 likes best, the right one aside."""
        order = list(range(len(self.passages)))
        rng.shuffle(order)
        asked: dict[int, list[int]] = {}
        for number, place in enumerate(right):
            asked.setdefault(place, []).append(number)
        hard: list[list[int]] = [[] for _ in questions]
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            weights, column = self._weights(chunk), {place: row for row, place in enumerate(chunk)}
            numbers = [number for place in chunk for number in asked.get(place, ())]
            for begin in range(0, len(numbers), 512):
                some = numbers[begin : begin + 512]
                scores = (self._query_matrix([questions[n] for n in some]) @ weights).toarray()
                scores[np.arange(len(some)), [column[right[n]] for n in some]] = -1
                best = np.argpartition(-scores, HARD, axis=1)[:, :HARD]
                for row, number in enumerate(some):
                    hard[number] = [chunk[j] for j in best[row]]
        return hard

    def _weights(self, chunk: list[int]) -> sparse.csr_matrix:
        average = np.mean([len(self.passages[place]) for place in chunk])
        rows, columns, values = [], [], []
        for row, place in enumerate(chunk):
            tokens, counts = np.unique(self.passages[place], return_counts=True)
            norm = 1.2 * (0.25 + 0.75 * len(self.passages[place]) / average)
            rows += [row] * len(tokens)
            columns += tokens.tolist()
            values += (counts * 2.2 / (counts + norm)).tolist()
        return sparse.csr_matrix((values, (columns, rows)), shape=(len(self.idf), len(chunk)))

    def _query_matrix(self, questions: list[list[int]]) -> sparse.csr_matrix:
        cells = [
            (row, token)
            for row, ids in enumerate(questions)
            for token in set(ids[: -self.tail])
            if self.idf[token]
        ]
        rows, columns = zip(*cells, strict=True) if cells else ((), ())
        return sparse.csr_matrix(
            (self.idf[list(columns)], (rows, columns)), shape=(len(questions), len(self.idf))
        )


def write() -> Pairs:
    pairs = build()
    with PAIRS.open("wb") as file:
        pickle.dump(pairs, file)
    return pairs


def load() -> Pairs:
    with PAIRS.open("rb") as file:
        return pickle.load(file)


def show(pairs: Pairs, tokenizer: Tokenizer, count: int = 8) -> None:
    for asked in random.Random(0).sample(pairs.questions, count):
        print(repr(tokenizer.decode(asked.ids)))
        print("   +", tokenizer.decode(pairs.passages[asked.right])[:140])
        print("   -", tokenizer.decode(pairs.passages[asked.hard[0]])[:140])


if __name__ == "__main__":
    from pairs import (
        write as write_as_module,
    )  # pickled classes must live in `pairs`, not `__main__`

    made = write_as_module()
    print(
        len(made.questions),
        "questions",
        len(made.passages),
        "passages",
        np.mean([len(p) for p in made.passages]),
        "tokens",
    )
    show(made, vocabulary.load())
