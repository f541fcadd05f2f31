"""The same held-out sets through all-MiniLM-L6-v2, the teacher: four times our model's size.

python yardstick.py [--set design] [--questions 60]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

import held_out
from evaluate import TRIPLE_FILES, known_item, triples
from teacher import FOLDER


class Embedder:
    """Mean pooling and cosine, as its card says. No probabilities: only ranks count."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def __call__(self, query: str, documents: Sequence[str]) -> list[float]:
        vectors = self._embed([query, *documents])
        return (vectors[1:] @ vectors[0]).tolist()

    def _embed(self, texts: list[str]) -> Tensor:
        rows = self.tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        hidden = self.model(**rows).last_hidden_state
        real = rows["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--set", choices=held_out.KINDS, default="design")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    score = Embedder(FOLDER)
    for file in TRIPLE_FILES.get(chosen.set, []):
        for name, triple_figures in triples(score, file).items():
            print(f"{file} {name}: {triple_figures}")
    for name in held_out.KINDS[chosen.set][0]:
        figures = known_item(name, chosen.set, score, chosen.questions)
        print(
            name,
            figures.questions,
            "MRR",
            figures.mrr,
            "only random:",
            figures.mrr_random,
            flush=True,
        )


if __name__ == "__main__":
    main()
