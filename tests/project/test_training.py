"""The recipe of the built-in model: what its hand-written weights compute, and its steps."""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3Config

from rankd.engines import devices

TRAINING = Path(__file__).parents[2] / "training"
NEEDED = ("prompt", "vocabulary", "construct", "export", "pairs", "readout", "run", "teacher")
QUESTION = "how do cats sleep in a small house"
DOCUMENTS = [
    "Cats sleep in a basket, and cats sleep in the sun.",
    "A small house. Small houses are cheap; a house needs a roof.",
    "Shares rose by three percent on Monday.",
    QUESTION,
    "cats",
    "(House) and [small], (house)",  # without a space before a word that is in the question
]


class Recipe:
    """Modules of training/, and a model that they write from a random table.

    Attributes:
        words: (V,) whether a token is of a word.
        table: (V, SIZE) meanings; weights: (V,) of the coverage, one for all spellings.
    """

    def __init__(self, modules: dict[str, ModuleType], tokenizer_folder: Path) -> None:
        self.construct, self.export = modules["construct"], modules["export"]
        self.prompt, self.steps = modules["prompt"].prompt, modules["run"].STEPS
        self.pairs, self.readout = modules["pairs"], modules["readout"]
        self.teacher = modules["teacher"]
        self.tokenizer = modules["vocabulary"].load(tokenizer_folder)
        self.words = modules["vocabulary"].words(self.tokenizer)
        noise = torch.Generator().manual_seed(1)
        count = self.tokenizer.get_vocab_size()
        directions = torch.randn(count, self.construct.SIZE, generator=noise)
        lengths = torch.rand(count, 1, generator=noise) + 0.2
        self.table = F.normalize(directions, dim=1) * lengths
        self.spellings = modules["vocabulary"].spellings(self.tokenizer)
        self.weights = (torch.rand(count, generator=noise) * 10 + 2)[self.spellings]
        config = Qwen3Config(**self.export.config(self.tokenizer))
        self.model = self.construct.construct(config, self.table, self.weights, self.tokenizer)

    def read(
        self, instruction: str = "-", documents: Sequence[str] = DOCUMENTS
    ) -> tuple[list[float], list[float]]:
        """Coverage and cosine of each document, as the last token holds them."""
        prompts = [self.prompt(QUESTION, document, instruction) for document in documents]
        rows = [self.tokenizer.encode(prompt).ids for prompt in prompts]
        states = self.export.last_states(self.model, rows)
        # The last norm scales all lanes alike; this one is known.
        states = states * self.construct.LAST_CONSTANT / states[:, self.construct.FILL, None]
        cosines = states[:, self.construct.COSINE] + self.construct.USUAL
        return states[:, self.construct.COVERAGE].tolist(), cosines.tolist()

    def tokens(self, text: str) -> list[int]:
        return [token for token in self.tokenizer.encode(f" {text}").ids if self.words[token]]

    def meaning(self, text: str) -> Tensor:
        return self.table[self.tokens(text)].sum(0)


@pytest.fixture(scope="module")
def recipe(builtin: Path) -> Iterator[Recipe]:
    # training/ is no package, and other folders have modules of the same names.
    names = [file.stem for file in TRAINING.glob("*.py")]
    before: dict[str, Any] = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(TRAINING))
    try:
        yield Recipe({name: importlib.import_module(name) for name in NEEDED}, builtin)
    finally:
        sys.path.remove(str(TRAINING))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def test_the_weights_compute_the_coverage_of_the_question(recipe: Recipe) -> None:
    def words(text: str) -> set[int]:
        return {int(recipe.spellings[token]) for token in recipe.tokens(text)}

    asked = words(QUESTION)
    total = sum(float(recipe.weights[word]) for word in asked)
    found = [sum(float(recipe.weights[word]) for word in asked & words(text)) for text in DOCUMENTS]

    coverage, _ = recipe.read()

    assert found[2] == 0
    assert found[3] == total
    assert coverage == pytest.approx([one / (one + total) for one in found], abs=0.02)


def test_the_weights_compute_the_cosine_of_the_meanings(recipe: Recipe) -> None:
    question = recipe.meaning(QUESTION)
    expected = [
        float(F.cosine_similarity(question, recipe.meaning(text), dim=0)) for text in DOCUMENTS
    ]

    _, cosines = recipe.read()

    assert cosines == pytest.approx(expected, abs=0.03)


def test_a_document_without_words_has_no_meaning(recipe: Recipe) -> None:
    coverage, cosines = recipe.read(documents=["", " ", "...", "?!"])

    assert coverage == pytest.approx([0] * 4, abs=0.001)
    # The square of the sum of a unit vector and of nothing is 1, which means 2 + 2 cos.
    assert cosines == pytest.approx([-0.5] * 4, abs=0.03)


def test_the_instruction_changes_the_cosine_and_not_the_coverage(recipe: Recipe) -> None:
    plain, about_shares = recipe.read(), recipe.read("find passages about shares")

    assert about_shares[0] == pytest.approx(plain[0], abs=0.005)
    assert about_shares[1][2] > plain[1][2] + 0.01


def test_the_readout_makes_logits_of_both_numbers(recipe: Recipe) -> None:
    def ids(text: str) -> Any:
        return recipe.tokenizer.encode(f" {text}").ids

    passages = [*DOCUMENTS, "Bread is baked.", "Rain falls."]
    asked = recipe.pairs.Question(ids(QUESTION), right=3, hard=[0, 1])
    pairs = recipe.pairs.Pairs(
        passages=[ids(text) for text in passages],
        sources=["own en"] * len(passages),
        questions=[asked] * 4,
        frequency=np.ones(len(recipe.table)),
    )

    scores = recipe.readout.scores_of(recipe.model, recipe.tokenizer, pairs)
    scale, shift = recipe.readout.fit(scores).tolist()
    model = copy.deepcopy(recipe.model)
    constant = recipe.readout._constant(model, recipe.tokenizer)
    recipe.readout.read(model, recipe.tokenizer, scale, shift / constant)

    assert scores.shape == (4, 8)
    assert scale > 0
    # The right passage is the question itself, and may also be among the random ones.
    assert (scores[:, 0] >= scores.amax(1) - 0.001).all()
    rows = [recipe.tokenizer.encode(recipe.prompt(QUESTION, text, "-")).ids for text in DOCUMENTS]
    with torch.inference_mode():
        states = recipe.export.last_states(recipe.model, rows)
        logits = model.lm_head(recipe.export.last_states(model, rows))
    yes, no = (recipe.tokenizer.token_to_id(word) for word in ("yes", "no"))
    weighted = (
        states[:, recipe.construct.COSINE]
        + recipe.readout.LEXICAL * states[:, recipe.construct.COVERAGE]
    )
    torch.testing.assert_close(
        logits[:, yes] - logits[:, no], scale * weighted + shift, atol=0.02 * scale, rtol=0
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        *((f"avx2 {flag} fma", torch.bfloat16) for flag in devices._BFLOAT16_FLAGS),
        ("avx2 avx512f fma", torch.float32),
    ],
)
def test_the_teacher_computes_in_bfloat16_where_the_processor_has_it(
    recipe: Recipe, tmp_path: Path, flags: str, expected: torch.dtype
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")

    assert recipe.teacher.dtype_of(tmp_path / "cpuinfo") == expected


def test_each_step_is_a_script_and_stands_in_the_table(recipe: Recipe) -> None:
    scripts = {name: step.command.split()[0] for name, step in recipe.steps.items()}
    text = (TRAINING / "README.md").read_text(encoding="utf-8")
    table = text.split("| step | file | does |")[1].split("\n\n")[0]

    assert all((TRAINING / script).is_file() for script in scripts.values())
    assert re.findall(r"^\| ([\w-]+) \| `(\w+\.py)`", table, re.MULTILINE) == [*scripts.items()]
