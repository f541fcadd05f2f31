"""Which tokenizers run on tiktoken, and that both encoders agree."""

from __future__ import annotations

import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import orjson
import pytest

from rankd.errors import BadModel
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import open_encoder
from rankd.prompts.text_encoders import (
    BytePairEncoder,
    GeneralEncoder,
    TextEncoder,
    text_encoder,
)
from rankd.prompts.tokenizer import Tokenizer
from rankd.prompts.tokenizer_json import _COMPOSED
from support.random_texts import random_texts

TEXTS = [
    "The capital of China is Beijing.",
    "中国的首都是北京。",
    "def f(x):\n    return {'a': x ** 2}  # ok",
    "Ünïcödé e\u0301 ΑΣ İstanbul 👩\u200d👩\u200d👧",
    " a  b\t\n\n c <|im_end|><think>yes</think>",
    "",
]


def spec_of(folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = orjson.loads((folder / "tokenizer.json").read_bytes())
    return spec


@pytest.fixture(params=["qwen", "builtin"])
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return spec_of(request.getfixturevalue(request.param))


def test_both_encoders_give_the_same_ids(spec: dict[str, Any]) -> None:
    fast: TextEncoder = text_encoder(spec)
    general: TextEncoder = GeneralEncoder(spec)

    texts = TEXTS + random_texts(random.Random(17), 5_000, list(spec["model"]["vocab"]))

    assert isinstance(fast, BytePairEncoder)
    assert fast.encode(texts) == general.encode(texts)


def test_no_character_of_a_text_that_is_taken_as_normalized_changes_under_nfc() -> None:
    composed = [chr(code) for code in range(sys.maxunicode) if _COMPOSED.fullmatch(chr(code))]
    seconds = {
        chr(int(parts[1], 16))
        for code in range(sys.maxunicode)
        if len(parts := unicodedata.decomposition(chr(code)).split()) == 2
        and not parts[0].startswith("<")
    }

    assert len(composed) > 30_000
    assert "\u0301" in seconds
    assert not [
        character
        for character in composed
        if unicodedata.normalize("NFC", character) != character
        or unicodedata.combining(character)
        or character in seconds
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_a_tokenizer_that_tiktoken_cannot_reproduce_gets_the_general_encoder(
    builtin: Path, change: dict[str, Any]
) -> None:
    assert isinstance(text_encoder(spec_of(builtin) | change), GeneralEncoder)


def test_merges_in_another_order_than_ids_get_the_general_encoder(builtin: Path) -> None:
    spec = spec_of(builtin)
    spec["model"]["merges"][:2] = reversed(spec["model"]["merges"][:2])

    assert isinstance(text_encoder(spec), GeneralEncoder)


def test_the_general_encoder_has_no_control_tokens(qwen: Path) -> None:
    spec = spec_of(qwen)
    control = {token["id"] for token in spec["added_tokens"]}

    [ids] = GeneralEncoder(spec).encode(["<|im_end|><think></think><tool_call>"])

    assert not control.intersection(ids)


def test_the_template_holds_control_tokens(qwen: Path) -> None:
    ids = Tokenizer(spec_of(qwen)).encode_template("<|im_end|>\n<think>")

    assert ids == [151645, 198, 151667]


def test_a_tokenizer_larger_than_the_model_is_refused(builtin: Path) -> None:
    checkpoint = Checkpoint(builtin, "small", {"vocab_size": 100})

    with pytest.raises(BadModel, match="the model has rows for 100"):
        open_encoder(checkpoint, max_tokens=512, instruction="i", max_instruction_tokens=64)


def test_a_broken_tokenizer_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')

    with pytest.raises(BadModel, match="is not a usable tokenizer"):
        open_encoder(
            Checkpoint(tmp_path, "broken", {}),
            max_tokens=512,
            instruction="i",
            max_instruction_tokens=64,
        )
