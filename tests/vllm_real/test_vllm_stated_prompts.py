"""Checkpoints that state prompt and answers: the real vLLM on CPU against the native engine.

The native engine is compared with sentence-transformers in `tests/engines/native`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rankd.config.settings import Settings
from rankd.server.app import open_ranker
from rankd.types import RankRequest
from support import layouts
from support.checkpoints import make_checkpoint
from support.layouts import CAPITAL_NO, CAPITAL_YES, state

pytestmark = pytest.mark.vllm

QUERY = "What is the capital of China?"
DOCUMENTS = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies.\n",
    "\n\n中国的首都是北京。  ",
    "",
)
LAYOUTS: dict[str, dict[str, Any]] = {
    "one token, own turns, scale": {
        "template": layouts.TURNS,
        "answers": (CAPITAL_YES, None),
        "scale": 0.2,
    },
    "other tokens, own instruction, untied": {
        "template": layouts.QWEN,
        "answers": (CAPITAL_YES, CAPITAL_NO),
        "prompt": "Find code.",
    },
    "document first, classifier": {
        "template": layouts.DOCUMENT_FIRST,
        "answers": None,
        "task": "sequence-classification",
    },
}
SHAPES: dict[str, dict[str, Any]] = {
    "other tokens, own instruction, untied": {"tied": False},
    "document first, classifier": {"classifier": True},
}


def logits(folder: Path, engine: str) -> list[float]:
    async def rank() -> list[float]:
        settings = Settings(model=str(folder), engine=engine, device="cpu", max_tokens=512)
        async with open_ranker(settings) as (_, ranker):
            return [row.logit for row in await ranker.rank(RankRequest(QUERY, DOCUMENTS))]

    return asyncio.run(rank())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_scores_as_in_the_native_engine(layout: str, tmp_path: Path) -> None:
    shape = {"layers": 3, "head_dim": 32} | SHAPES.get(layout, {})
    folder = make_checkpoint(tmp_path / "model", seed=3, **shape)
    state(folder, **LAYOUTS[layout])

    expected = logits(folder, "native")

    assert max(expected) - min(expected) > 0.1
    assert logits(folder, "vllm") == pytest.approx(expected, abs=4e-3)
