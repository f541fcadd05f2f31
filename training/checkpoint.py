"""Weights between the steps, and where they lie."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model import Reranker, Shape
from sources import DATA

LEXICAL = DATA / "lexical.pt"  # trained from the construction
FINAL = DATA / "checkpoint.pt"  # with meanings


def save(shape: Shape, weights: dict[str, Tensor], out: Path) -> None:
    part = out.with_suffix(".part")
    torch.save({"shape": shape.as_dict(), "weights": weights}, part)
    part.rename(out)


def restore(path: Path) -> Reranker:
    saved = torch.load(path)
    model = Reranker(Shape(**saved["shape"]))
    model.load_state_dict(saved["weights"])
    return model
