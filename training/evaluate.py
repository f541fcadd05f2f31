"""Judge a checkpoint folder as its users meet it: transformers, the whole prompt, float32.

python evaluate.py [--checkpoint FOLDER] [--set design] [--questions 150]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import held_out
from export import BUILTIN, last_states
from prompt import prompt

TRIPLES = Path(__file__).parent / "eval"
# The first file was looked at while designing, the second was scored for the card alone.
TRIPLE_FILES = {
    "design": ["triples.jsonl"],
    "card": ["triples.jsonl", "triples-fresh.jsonl"],
}

Score = Callable[[str, Sequence[str]], list[float]]  # logits, one for each document


class Model:
    """A checkpoint in transformers; calling it scores documents against a query."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.yes, self.no = (self.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))

    @torch.inference_mode()
    def __call__(self, query: str, documents: Sequence[str]) -> list[float]:
        rows = self.tokenizer([prompt(query, document) for document in documents])["input_ids"]
        logits = self.model.lm_head(last_states(self.model, rows))
        return (logits[:, self.yes] - logits[:, self.no]).tolist()


@dataclass(frozen=True, slots=True)
class KnownItem:
    """Figures of one held-out set; shares are of scores above or below one half."""

    name: str
    questions: int
    mrr: float
    mrr_bm25: float
    mrr_random: float
    mrr_random_bm25: float
    right_above: float
    random_below: float
    hard_below: float


def known_item(name: str, kind: str, score: Score, questions: int) -> KnownItem:
    items = held_out.load(name, kind)[:questions]
    scores = [score(item.query, item.documents) for item in items]
    easy = [0, *range(1 + held_out.HARD, 1 + held_out.HARD + held_out.STRANGERS)]
    return KnownItem(
        name,
        len(items),
        _mean(reciprocal(s) for s in scores),
        _mean(reciprocal(item.bm25) for item in items),
        _mean(reciprocal([s[i] for i in easy]) for s in scores),
        _mean(reciprocal([item.bm25[i] for i in easy]) for item in items),
        _mean(s[0] > 0 for s in scores),
        _mean(value < 0 for s in scores for value in s[1 + held_out.HARD :]),
        _mean(value < 0 for s in scores for value in s[1 : 1 + held_out.HARD]),
    )


def reciprocal(scores: Sequence[float]) -> float:
    """1 / rank of the first score; ties count half."""
    first, rest = scores[0], scores[1:]
    return 1 / (1 + sum(s > first for s in rest) + 0.5 * sum(s == first for s in rest))


def triples(score: Score, file: str = "triples.jsonl") -> dict[str, str]:
    """Right before both wrong ones, by language; how many lie on their own side of one half."""
    report: dict[str, str] = {}
    for language in ("en", "zh"):
        rows = [
            row
            for line in (TRIPLES / file).open(encoding="utf8")
            if (row := json.loads(line))["lang"] == language
        ]
        scored = [
            (row["query"], score(row["query"], [row["right"], *row["wrong"]])) for row in rows
        ]
        good = sum(s[0] > max(s[1:]) for _, s in scored)
        above, below = (
            sum(s[0] > 0 for _, s in scored),
            sum(v < 0 for _, s in scored for v in s[1:]),
        )
        report[language] = (
            f"{good}/{len(rows)} right first; right > .5: {above}/{len(rows)}; "
            f"wrong < .5: {below}/{2 * len(rows)}"
        )
        report[f"{language} missed"] = "; ".join(
            f"{q} {[round(v, 1) for v in s]}" for q, s in scored if s[0] <= max(s[1:])
        )
    return report


CAPITAL, GRAVITY = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical"
    " objects and is responsible for the movement of planets around the sun.",
)
CAPITAL_ZH, GRAVITY_ZH = (
    "中国的首都是北京。",
    "引力是使两个物体相互吸引的力，它使物体具有重量，并使行星围绕太阳运动。",
)
CARD = (
    ("What is the capital of China?", CAPITAL, GRAVITY),
    ("Explain gravity", GRAVITY, CAPITAL),
    ("中国的首都是哪里？", CAPITAL_ZH, GRAVITY_ZH),
    ("解释一下引力", GRAVITY_ZH, CAPITAL_ZH),
)


def card(score: Score) -> list[str]:
    """The examples of Qwen's model card and their Chinese twins."""
    return [
        f"{query}: {', '.join(f'{1 / (1 + math.exp(-v)):.3f}' for v in score(query, documents))}"
        for query, *documents in CARD
    ]


def _mean(values: object) -> float:
    numbers = [float(value) for value in values]  # type: ignore[attr-defined]
    return round(sum(numbers) / len(numbers), 3)


def report(score: Score, kind: str, questions: int) -> None:
    for line in card(score) if TRIPLE_FILES.get(kind) else []:
        print(line)
    for file in TRIPLE_FILES.get(kind, []):
        for name, figures in triples(score, file).items():
            print(f"{file} {name}: {figures}")
    for name in held_out.KINDS[kind][0]:
        print(known_item(name, kind, score, questions), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=BUILTIN)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--set", choices=held_out.KINDS, default="design")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    report(Model(chosen.checkpoint), chosen.set, chosen.questions)


if __name__ == "__main__":
    main()
