"""The same held-out sets through all-MiniLM-L6-v2, an embedding model of ten times the size.

    python yardstick.py FOLDER [--questions 60]

FOLDER holds the model in transformers' format. It is a yardstick: nothing of it is in our model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

import held_out
from evaluate import known_item, triples


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
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    score = Embedder(chosen.folder)
    for name, figures in triples(score).items():
        print(f"triples {name}: {figures}")
    for name in held_out.SETS:
        figures = known_item(name, "fresh", score, chosen.questions)
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
