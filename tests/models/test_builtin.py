"""The built-in model: what its card promises, through the real engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankd.config.settings import Settings
from rankd.ranking import self_check
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker
from rankd.types import Prompt, RankRequest

ROOT = Path(__file__).parents[2]
TRIPLES = [
    json.loads(line)
    for file in sorted((ROOT / "training" / "eval").glob("triples*.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]


async def score_everything() -> tuple[
    list[self_check.Outcome], list[list[float]], list[list[float]]
]:
    """Outcomes of the known pairs; logits of each triple, and of unrelated documents."""
    async with open_ranker(Settings(self_check="off")) as (_, ranker):
        outcomes = await self_check.score_known_pairs(ranker)
        triples = await logits(
            ranker, [RankRequest(row["query"], (row["right"], *row["wrong"])) for row in TRIPLES]
        )
        unrelated = await logits(
            ranker,
            [
                RankRequest(
                    row["query"], tuple(unrelated_document(index, step) for step in (7, 13, 29))
                )
                for index, row in enumerate(TRIPLES)
            ],
        )
    return outcomes, triples, unrelated


async def logits(ranker: Ranker, requests: list[RankRequest]) -> list[list[float]]:
    return [[result.logit for result in group] for group in await ranker.rank_all(requests)]


def unrelated_document(index: int, step: int) -> str:
    """The right document of another query."""
    document: str = TRIPLES[(index + step) % len(TRIPLES)]["right"]
    return document


@pytest.fixture(scope="module")
def scored() -> tuple[list[self_check.Outcome], list[list[float]], list[list[float]]]:
    return asyncio.run(score_everything())


def test_the_known_pairs_pass_with_twice_the_margin(scored: Any) -> None:
    assert scored[0]
    for outcome in scored[0]:
        assert outcome.problem is None
        assert outcome.right - outcome.wrong > 2 * self_check.MIN_MARGIN


def test_four_of_five_unseen_triples_are_right(scored: Any) -> None:
    right = sum(scores[0] > max(scores[1:]) for scores in scored[1])

    assert len(TRIPLES) >= 40
    assert {row["lang"] for row in TRIPLES} == {"en", "zh"}
    assert right / len(TRIPLES) >= 0.8


def test_nine_of_ten_unrelated_documents_score_below_one_half(scored: Any) -> None:
    unrelated = [logit for scores in scored[2] for logit in scores]

    assert sum(logit < 0 for logit in unrelated) / len(unrelated) >= 0.9


def made_up_word_requests(count: int) -> list[RankRequest]:
    """A word that no model knows stands in the query and in the first of ten documents alone."""
    rng = random.Random(5)
    texts = [
        text for row in TRIPLES if row["lang"] == "en" for text in (row["right"], *row["wrong"])
    ]
    syllables = [
        "zor",
        "bax",
        "quil",
        "mev",
        "tro",
        "lun",
        "pik",
        "dra",
        "fen",
        "gos",
        "wub",
        "hax",
    ]
    requests = []
    for _ in range(count):
        word = "".join(rng.sample(syllables, 3))
        query = rng.choice(["what is {}", "{}", "{} option", "how does {} work?"]).format(word)
        # Passages of about 60 words: five texts each.
        documents = [" ".join(rng.sample(texts, 5)) for _ in range(10)]
        words = documents[0].split()
        words.insert(rng.randrange(len(words)), word)
        requests.append(RankRequest(query, (" ".join(words), *documents[1:])))
    return requests


@pytest.mark.anyio
async def test_a_made_up_word_finds_its_only_passage() -> None:
    async with open_ranker(Settings(self_check="off")) as (_, ranker):
        scores = await logits(ranker, made_up_word_requests(60))

    assert [row.index(max(row)) for row in scores] == [0] * 60


@pytest.mark.anyio
async def test_a_document_without_words_is_irrelevant() -> None:
    documents = ("", " ", "\n\n", "...", "?!", "。")
    async with open_ranker(Settings(self_check="off")) as (_, ranker):
        scores = await logits(ranker, [RankRequest(row["query"], documents) for row in TRIPLES])

    assert max(max(row) for row in scores) < -4


def test_the_model_is_smaller_than_12_megabytes(builtin: Path) -> None:
    assert sum(file.stat().st_size for file in builtin.iterdir() if file.is_file()) < 12_000_000


@pytest.mark.anyio
async def test_transformers_computes_the_same_logits(builtin: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(builtin)
    model = AutoModelForCausalLM.from_pretrained(builtin, dtype=torch.float32).eval()
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    requests = [RankRequest(row["query"], (row["right"],)) for row in TRIPLES[::6]]

    ours, prompts = await logits_and_prompts(requests)

    for logit, prompt in zip(ours, prompts, strict=True):
        with torch.inference_mode():
            row = model(torch.tensor([[*prompt.prefix, *prompt.suffix]])).logits[0, -1]
        assert math.isclose(logit, float(row[yes] - row[no]), abs_tol=1e-4)


async def logits_and_prompts(requests: list[RankRequest]) -> tuple[list[float], list[Prompt]]:
    async with open_ranker(Settings(self_check="off")) as (_, ranker):
        encoded = [
            prompt
            for request in requests
            for prompt in ranker.encoder.encode_blocking(request).prompts
        ]
        return [logit for [logit] in await logits(ranker, requests)], encoded


def test_the_model_card_has_the_checksum_of_the_weights(builtin: Path) -> None:
    digest = hashlib.sha256((builtin / "model.safetensors").read_bytes()).hexdigest()

    assert digest in (builtin / "README.md").read_text(encoding="utf-8").replace("` `", "")


def test_the_model_card_names_the_licence_and_the_baselines(builtin: Path) -> None:
    card = (builtin / "README.md").read_text(encoding="utf-8")

    assert "Apache-2.0" in card
    assert "BM25" in card
    assert "MiniLM" in card
