"""Checkpoints that state prompt and answers score as in sentence-transformers, which saved them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.weights import load
from rankd.models.checkpoint import locate
from rankd.prompts import open_encoder
from rankd.types import RankRequest
from support import layouts
from support.checkpoints import NO, YES, make_checkpoint
from support.layouts import CAPITAL_NO, CAPITAL_YES, stated

QUERY = "What is the capital of China?"
DOCUMENTS = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies.\n",
    "\n\n中国的首都是北京。  ",
    "e\u0301 's \t👩\u200d👧.",
    "",
)
ONE = (CAPITAL_YES, None)
LAYOUTS: dict[str, dict[str, Any]] = {
    "qwen": {"template": layouts.QWEN},
    "one token, own turns": {"template": layouts.TURNS, "answers": ONE},
    "other tokens": {"template": layouts.QWEN, "answers": (CAPITAL_YES, CAPITAL_NO)},
    "default instruction": {"template": layouts.QWEN, "prompt": "Find code that solves it"},
    "scale": {"template": layouts.TURNS, "answers": ONE, "scale": 0.2},
    "document first": {"template": layouts.DOCUMENT_FIRST},
    "document first, instruction": {"template": layouts.DOCUMENT_FIRST, "prompt": "Find it."},
    "plain text": {"template": layouts.PLAIN, "answers": (CAPITAL_YES, CAPITAL_NO)},
    "content in parts": {"template": layouts.PARTS, "structured": True},
    "trimmed": {"template": layouts.TRIMMED, "options": {"add_generation_prompt": True}},
    "trimmed, instruction": {"template": layouts.TRIMMED, "prompt": "Find it."},
    "optional instruction": {"template": layouts.OPTIONAL},
    "optional instruction, set": {"template": layouts.OPTIONAL, "prompt": "Find it."},
    "logit as score": {
        "template": layouts.TURNS,
        "activation": "torch.nn.modules.linear.Identity",
    },
    "template only": {"template": layouts.QWEN, "modules": False},
    "other template only": {"template": layouts.DOCUMENT_FIRST, "modules": False},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "causal")


def native_logits(
    folder: Path, documents: Sequence[str] = DOCUMENTS, instruction: str | None = None
) -> list[float]:
    checkpoint = locate(str(folder))
    encoder = open_encoder(
        checkpoint,
        max_tokens=4096,
        instruction="Given a web search query, retrieve relevant passages that answer the query",
        max_instruction_tokens=512,
        prefer_stated=True,
    )
    request = RankRequest(QUERY, tuple(documents), instruction=instruction)
    prompts = encoder.encode_blocking(request).prompts
    architecture = read_architecture(checkpoint.config)
    cpu = torch.device("cpu")
    weights = load(checkpoint.weights, architecture, encoder.answers, cpu, torch.float32)
    suffixes = [(0, array("i", prompt.suffix)) for prompt in prompts]
    return Qwen3Model(weights, architecture).score(
        TokenBatch([array("i", prompts[0].prefix)], suffixes)
    )


def reference_logits(
    folder: Path, documents: Sequence[str] = DOCUMENTS, prompt: str | None = None
) -> list[float]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    pairs = [(QUERY, document) for document in documents]
    scores = model.predict(pairs, prompt=prompt, activation_fn=torch.nn.Identity())
    return [float(score) for score in scores]


# In the fast suite: sentence-transformers takes seconds to import, and one for each model.
QUICK = frozenset({"one token, own turns", "document first, instruction"})


@pytest.mark.parametrize(
    "layout",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS],
)
def test_each_layout_scores_as_sentence_transformers_does(
    layout: str, base: Path, tmp_path: Path
) -> None:
    folder = stated(tmp_path / "model", base, **LAYOUTS[layout])

    expected = reference_logits(folder)

    assert max(expected) - min(expected) > 0.05
    assert native_logits(folder) == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
def test_an_instruction_of_a_request_replaces_the_saved_one(base: Path, tmp_path: Path) -> None:
    folder = stated(tmp_path / "model", base, template=layouts.OPTIONAL, prompt="Find it.")

    ours = native_logits(folder, instruction="Find another.")

    assert ours == pytest.approx(reference_logits(folder, prompt="Find another."), abs=2e-5)
    assert ours != pytest.approx(native_logits(folder), abs=1e-3)


@pytest.mark.slow
def test_a_classifier_scores_as_sentence_transformers_does(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", classifier=True)
    folder = stated(
        tmp_path / "model",
        base,
        template=layouts.TURNS,
        answers=None,
        task="sequence-classification",
    )

    assert native_logits(folder) == pytest.approx(reference_logits(folder), abs=2e-5)


@pytest.mark.slow
def test_what_sentence_transformers_saves_is_read_and_scores_the_same(
    base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    folder = stated(tmp_path / "model", base, template=layouts.QWEN, modules=False)
    scale = Dense(
        1,
        1,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=torch.tensor([[0.2]]),
        module_input_name="scores",
    )
    modules = [
        Transformer(str(folder), transformer_task="text-generation"),
        LogitScore(CAPITAL_YES, None),
        scale,
    ]
    model = CrossEncoder(
        modules=modules, prompts={"own": "Find it."}, default_prompt_name="own", device="cpu"
    )
    saved, written = tmp_path / "saved", tmp_path / "written"
    model.save_pretrained(str(saved), create_model_card=False)

    stated(written, base, template=layouts.QWEN, answers=ONE, scale=0.2, prompt="Find it.")

    assert native_logits(saved) == pytest.approx(reference_logits(saved), abs=2e-5)
    for name in ("modules.json", "sentence_bert_config.json", "2_Dense/config.json"):
        assert json.loads((saved / name).read_text()) == json.loads((written / name).read_text())
    assert locate(str(saved)).statement.answers == locate(str(written)).statement.answers == ONE


def test_swapped_answers_turn_the_order_around(base: Path, tmp_path: Path) -> None:
    usual, swapped = (
        native_logits(
            stated(tmp_path / str(answers[0]), base, template=layouts.QWEN, answers=answers)
        )
        for answers in ((YES, NO), (NO, YES))
    )

    assert swapped == pytest.approx([-logit for logit in usual], abs=1e-5)
