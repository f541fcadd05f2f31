"""The native forward pass against transformers, which computes one pair at a time in float32."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.prefix_cache import MAX_BYTES
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import Prompt
from support.checkpoints import make_checkpoint
from support.native import native_model, score, transformers_logits

MODELS: dict[str, dict[str, Any]] = {
    "tied": {"heads": 4, "kv_heads": 2},
    "untied, no shared key-value heads": {"tied": False, "heads": 4, "kv_heads": 4, "layers": 3},
    "four query heads for each key-value head": {
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 32,
        "hidden": 48,
    },
    "classifier": {"classifier": True, "heads": 4, "kv_heads": 1},
    "sharded, one layer": {"sharded": True, "layers": 1},
    "stored in bfloat16, untied, sharded": {"dtype": "bfloat16", "tied": False, "sharded": True},
    "stored in float16, classifier": {"dtype": "float16", "classifier": True},
    "published head_dim": {"head_dim": 128, "hidden": 96, "mlp": 200, "layers": 4},
}

TEXTS = [
    "a",
    "Paris is the capital of France.",
    "The quick brown fox jumps over the lazy dog, again and again. " * 6,
    "北京是中华人民共和国的首都，也是全国的政治中心。" * 4,
    "👩‍👩‍👧 🎉🎉 naïve café — ½ ﷽ \u200b zero width",
    "def f(x):\n    return {k: v ** 2 for k, v in x.items() if v}\n\n\n" * 5,
    "x" * 300,
    "",
]


@dataclass(frozen=True)
class Ours:
    """The native model, in this process."""

    checkpoint: Checkpoint
    dtype: torch.dtype = torch.float32

    def new_model(self, prefix_cache_bytes: int = MAX_BYTES) -> Qwen3Model:
        return native_model(self.checkpoint, self.dtype, prefix_cache_bytes)

    @cached_property
    def _model(self) -> Qwen3Model:
        return self.new_model()

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        return score(self._model, prompts)


@pytest.fixture(scope="module")
def tokenizer(qwen: Path) -> Tokenizer:
    return Tokenizer.from_file(str(qwen / "tokenizer.json"))


@pytest.fixture(scope="module")
def encode(tokenizer: Tokenizer) -> Callable[[str, Sequence[str]], list[Prompt]]:
    """Prompts in Qwen3-Reranker's template, from a query and documents."""

    def prompts(query: str, documents: Sequence[str]) -> list[Prompt]:
        prefix = tuple(
            tokenizer.encode(
                "<|im_start|>system\nJudge whether the Document meets the requirements.<|im_end|>\n"
                f"<|im_start|>user\n<Instruct>: find it\n<Query>: {query}\n<Document>:"
            ).ids
        )
        end = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        return [Prompt(prefix, tuple(tokenizer.encode(" " + text + end).ids)) for text in documents]

    return prompts


Encode = Callable[[str, Sequence[str]], list[Prompt]]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = tmp_path_factory.mktemp("parity") / "wide"
    return Ours(locate(str(make_checkpoint(folder, hidden=96, layers=4, head_dim=32))))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_logits_are_those_of_transformers(
    model: dict[str, Any], encode: Encode, tmp_path: Path
) -> None:
    checkpoint = locate(str(make_checkpoint(tmp_path / "model", seed=3, **model)))
    prompts = encode("capital of France", TEXTS) + encode("首都在哪里？", TEXTS[:4])

    expected = transformers_logits(checkpoint, prompts)

    assert max(expected) - min(expected) > 0.5
    assert Ours(checkpoint).score(prompts) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_documents_of_one_to_four_thousand_tokens(ours: Ours, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(
        "".join(f"Chapter {n}: 第{n}章 it happened so.\n" for n in range(400))
    ).ids
    prefix = tuple(ids[500:567])
    lengths = (1, 2, 255, 256, 257, 700, 4000)
    prompts = [
        Prompt(prefix, tuple(ids[start : start + length])) for start, length in enumerate(lengths)
    ]

    assert [len(prompt.suffix) for prompt in prompts] == list(lengths)
    expected = transformers_logits(ours.checkpoint, prompts)

    assert ours.score(prompts) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_long_query_and_prompts_without_prefix(ours: Ours) -> None:
    dice = random.Random(0)
    long = tuple(dice.randrange(151_000) for _ in range(1500))
    prompts = [Prompt(long, (5, 6, 7)), Prompt(long, (8,)), Prompt((), long[:40]), Prompt((), (9,))]

    expected = transformers_logits(ours.checkpoint, prompts)

    assert ours.score(prompts) == pytest.approx(expected, abs=1e-3)


def _neighbours(count: int) -> list[Prompt]:
    """Prompts of three other prefixes, with suffixes of 1 to 300 tokens, many of equal length."""
    dice = random.Random(1)
    prefixes = [tuple(dice.randrange(151_000) for _ in range(size)) for size in (3, 30, 80)]
    return [
        Prompt(dice.choice(prefixes), tuple(dice.randrange(151_000) for _ in range(length)))
        for length in (dice.choice((1, 7, 7, 7, 30, 90, 300)) for _ in range(count))
    ]


def test_a_pair_scores_the_same_alone_and_among_a_hundred(ours: Ours, encode: Encode) -> None:
    pairs = encode("capital of France", TEXTS)
    others = _neighbours(100)

    alone = [ours.score([pair])[0] for pair in pairs]
    among = ours.score(others[:50] + pairs + others[50:])[50 : 50 + len(pairs)]

    assert among == pytest.approx(alone, abs=1e-4)


def test_equal_documents_have_equal_scores(ours: Ours, encode: Encode) -> None:
    pair = encode("capital of France", TEXTS[2:3])

    logits = ours.score(pair * 9)

    assert logits == pytest.approx(logits[:1] * 9, abs=1e-5)


@pytest.mark.parametrize("cache_bytes", [0, 100_000, MAX_BYTES])
def test_scores_do_not_depend_on_cached_prefixes(
    cache_bytes: int, ours: Ours, encode: Encode
) -> None:
    model = ours.new_model(cache_bytes)
    fresh = score(ours.new_model(), encode("capital of France", TEXTS))
    # Queries that share the beginning, nearly all, and all of the query that is scored next.
    for query in ("largest city", "capital of Spain", "capital of France and its history"):
        score(model, encode(query, TEXTS[:2]) + _neighbours(5))

    first, second = (score(model, encode("capital of France", TEXTS)) for _ in range(2))

    assert first == pytest.approx(fresh, abs=1e-4)
    assert second == pytest.approx(fresh, abs=1e-4)


def test_a_request_has_the_same_scores_in_one_batch_and_in_several(
    ours: Ours, encode: Encode
) -> None:
    prompts = encode("capital of France", TEXTS)
    model = ours.new_model()

    split = [logit for pair in prompts for logit in score(model, [pair])]

    assert split == pytest.approx(ours.score(prompts), abs=1e-4)


def _spread(logits: Sequence[float]) -> float:
    return max(logits) - min(logits)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_bfloat16_is_within_3_percent_of_the_spread_of_float32(
    model: dict[str, Any], encode: Encode, tmp_path: Path
) -> None:
    checkpoint = locate(str(make_checkpoint(tmp_path / "model", seed=3, tokenizer=False, **model)))
    prompts = encode("capital of France", TEXTS) + encode("首都在哪里？", TEXTS[:4])
    exact = Ours(checkpoint).score(prompts)

    logits = Ours(checkpoint, torch.bfloat16).score(prompts)

    assert logits != pytest.approx(exact, abs=1e-5)
    assert logits == pytest.approx(exact, abs=0.03 * _spread(exact))


def test_float16_is_close_to_float32(ours: Ours, encode: Encode) -> None:
    prompts = encode("capital of France", TEXTS)
    exact = ours.score(prompts)

    logits = Ours(ours.checkpoint, torch.float16).score(prompts)

    assert logits != pytest.approx(exact, abs=1e-5)
    assert logits == pytest.approx(exact, abs=0.03 * _spread(exact))


def test_a_pair_in_bfloat16_scores_nearly_the_same_alone_and_among_a_hundred(
    ours: Ours, encode: Encode
) -> None:
    bfloat16 = Ours(ours.checkpoint, torch.bfloat16)
    pairs = encode("capital of France", TEXTS)
    others = _neighbours(100)

    alone = [bfloat16.score([pair])[0] for pair in pairs]
    among = bfloat16.score(others[:50] + pairs + others[50:])[50 : 50 + len(pairs)]

    assert among == pytest.approx(alone, abs=0.01 * _spread(alone))


def test_long_documents_in_bfloat16_are_close_to_float32(ours: Ours) -> None:
    dice = random.Random(2)
    prefix = tuple(dice.randrange(151_000) for _ in range(67))
    prompts = [
        Prompt(prefix, tuple(dice.randrange(151_000) for _ in range(length)))
        for length in (1, 2, 127, 128, 128, 129, 256, 257, 700)
    ]
    exact = ours.score(prompts)

    logits = Ours(ours.checkpoint, torch.bfloat16).score(prompts)

    assert logits == pytest.approx(exact, abs=0.03 * _spread(exact))
