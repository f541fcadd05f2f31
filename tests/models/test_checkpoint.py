"""Model folders: invalid ones are a `BadModel`, never a traceback; fingerprints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rankd.engines.native.architecture import read_architecture
from rankd.errors import BadModel
from rankd.models.checkpoint import BUILTIN, locate
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


def change(file: Path, fields: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields))


def read_all(folder: Path) -> None:
    checkpoint = locate(str(folder))
    read_architecture(checkpoint.config)
    open_encoder(checkpoint, max_tokens=512, instruction="i", max_instruction_tokens=64)


def test_an_unchanged_folder_is_accepted(folder: Path) -> None:
    read_all(folder)


def test_a_config_may_have_no_labels(folder: Path) -> None:
    change(folder / "config.json", {"id2label": None})

    read_all(folder)


@pytest.mark.parametrize("fields", CONFIGS, ids=str)
def test_an_invalid_config_is_a_bad_model(folder: Path, fields: dict[str, Any]) -> None:
    change(folder / "config.json", fields)

    with pytest.raises(BadModel):
        read_all(folder)


@pytest.mark.parametrize("fields", TOKENIZERS, ids=str)
def test_an_invalid_tokenizer_is_a_bad_model(folder: Path, fields: dict[str, Any]) -> None:
    change(folder / "tokenizer.json", fields)

    with pytest.raises(BadModel):
        read_all(folder)


@pytest.mark.parametrize("text", ["{", '{"weight_map": []}', "[]", "{}"])
def test_an_invalid_index_of_shards_is_a_bad_model(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)

    with pytest.raises(BadModel):
        locate(str(folder))


def test_the_fingerprint_changes_with_any_weight(random_checkpoint: Path, tmp_path: Path) -> None:
    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = locate(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # Far behind what `revision` reads.
    fingerprint = before.fingerprint()
    weights.write_bytes(content)

    assert locate(str(tmp_path)).fingerprint() != fingerprint
    assert locate(BUILTIN).fingerprint() == locate(BUILTIN).fingerprint()


def test_the_fingerprint_of_a_file_in_the_hubs_cache_is_its_name(tmp_path: Path) -> None:
    builtin = locate(BUILTIN)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    blobs.mkdir()
    snapshot.mkdir()
    for file in builtin.path.iterdir():
        if file.suffix in (".json", ".safetensors"):
            (snapshot / file.name).write_bytes(file.read_bytes())
    weights = snapshot / "model.safetensors"
    for name in ("a" * 64, "b" * 64):
        (blobs / name).write_bytes(weights.read_bytes())
    fingerprints = []
    for name in ("a" * 64, "b" * 64):
        weights.unlink()
        weights.symlink_to(blobs / name)
        fingerprints.append(locate(str(snapshot)).fingerprint())

    assert fingerprints[0] != fingerprints[1]  # The file's name was used; it was not read.
