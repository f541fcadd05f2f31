"""Folders that are nearly a model: each is one sentence, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rankd.engines.native.architecture import read_architecture
from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from rankd.prompts import open_encoder

CONFIGS: list[dict[str, Any]] = [
    {"architectures": "Qwen3ForCausalLM"},
    {"architectures": [3]},
    {"architectures": None},
    {"hidden_size": "x"},
    {"max_position_embeddings": None},
    {"vocab_size": 0},
    {"num_attention_heads": 0},
    {"num_hidden_layers": 0},
    {"rope_parameters": "yarn"},
    {"rope_parameters": {"rope_type": "yarn"}},
]
TOKENIZERS: list[dict[str, Any]] = [
    {"model": {"type": "Unknown", "vocab": {"a": 0}}},
    {"model": []},
    {"model": {"type": "BPE", "vocab": [], "merges": []}},
    {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    {"normalizer": {"type": "Unknown"}},
]


@pytest.fixture
def folder(builtin: Path, tmp_path: Path) -> Path:
    for file in builtin.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path


def change(file: Path, by: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | by))


def read_all(folder: Path) -> None:
    checkpoint = locate(str(folder))
    read_architecture(checkpoint.config)
    open_encoder(checkpoint, max_tokens=512, instruction="i", max_instruction_tokens=64)


def test_an_unchanged_folder_is_fine(folder: Path) -> None:
    read_all(folder)


def test_a_config_may_leave_labels_open(folder: Path) -> None:
    change(folder / "config.json", {"id2label": None})

    read_all(folder)


@pytest.mark.parametrize("by", CONFIGS, ids=str)
def test_a_wrong_config_is_a_sentence(folder: Path, by: dict[str, Any]) -> None:
    change(folder / "config.json", by)

    with pytest.raises(BadModel):
        read_all(folder)


@pytest.mark.parametrize("by", TOKENIZERS, ids=str)
def test_a_wrong_tokenizer_is_a_sentence(folder: Path, by: dict[str, Any]) -> None:
    change(folder / "tokenizer.json", by)

    with pytest.raises(BadModel):
        read_all(folder)


@pytest.mark.parametrize("text", ["{", '{"weight_map": []}', "[]", "{}"])
def test_a_wrong_index_of_shards_is_a_sentence(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)

    with pytest.raises(BadModel):
        locate(str(folder))
