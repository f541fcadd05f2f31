"""Finds a model folder, and checks that rankd can serve the checkpoint in it."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadModel
from rankd.models.download import download
from rankd.models.statement import Statement, read_statement

BUILTIN = "builtin"
CAUSAL = "Qwen3ForCausalLM"
CLASSIFIER = "Qwen3ForSequenceClassification"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a Qwen3 reranker in Hugging Face's layout.

    Attributes:
        name: `builtin`, the folder's name, or the hub id.
        config: the parsed `config.json`.
    """

    path: Path
    name: str
    config: dict[str, Any]

    @property
    def is_classifier(self) -> bool:
        """Whether it was converted to a classifier: one `score` row instead of an LM head."""
        return CLASSIFIER in self.config["architectures"]

    @property
    def max_tokens(self) -> int:
        """Maximum length of a prompt, in tokens."""
        return int(self.config.get("max_position_embeddings", 32768))

    @cached_property
    def weights(self) -> list[Path]:
        """The safetensors files; several if the checkpoint is sharded, none if it lacks weights."""
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            return [self.path / name for name in _shards(index)]
        single = self.path / "model.safetensors"
        return [single] if single.is_file() else []

    @cached_property
    def statement(self) -> Statement:
        """What the folder states of prompt and score.

        Raises:
            BadModel: it states what rankd cannot compute.
        """
        return read_statement(self.path, self.config)

    @cached_property
    def revision(self) -> str:
        """Twelve hex digits that change with the configuration or the start of a weights file.

        Reads 1 MiB of each file.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in self.weights:
            digest.update(str(file.stat().st_size).encode())
            with file.open("rb") as stream:
                # The header (name, shape and offset of every tensor) and the first weights.
                digest.update(stream.read(1 << 20))
        return digest.hexdigest()[:12]

    def fingerprint(self) -> str:
        """A hex digest that changes with any bit of configuration and weights.

        Reads every file, which takes seconds for a large model. Files in the hub's cache are
        not read, because their names are their digests.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in self.weights:
            digest.update(f"{file.name} {_sha256(file)}\n".encode())
        return digest.hexdigest()


def _sha256(file: Path) -> str:
    """SHA-256 of a file, in hex. The hub's cache names large files by it."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def locate(
    model: str, revision: str | None = None, cancelled: threading.Event | None = None
) -> Checkpoint:
    """Find a model by its name, and download it if necessary.

    Args:
        model: `builtin`, a folder, or a hub id such as `Qwen/Qwen3-Reranker-0.6B`. A hub id
            is downloaded into the hub's cache unless it is there.
        revision: branch, tag or commit of a hub id.
        cancelled: stops the download when it is set.

    Raises:
        BadModel: there is no such folder or hub id, files are missing, or it is not a
            Qwen3-Reranker.
    """
    if model == BUILTIN:
        return _inspect(Path(__file__).parent / "builtin", BUILTIN)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _inspect(folder, folder.resolve().name)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return _inspect(download(model, revision, cancelled or threading.Event()), model)
    raise BadModel(
        f"no model folder at {model!r}; MODEL is {BUILTIN!r}, a folder with a Qwen3-Reranker "
        "checkpoint, or a hub id such as Qwen/Qwen3-Reranker-0.6B"
    )


def _inspect(path: Path, name: str) -> Checkpoint:
    checkpoint = Checkpoint(path, name, _read_config(path))
    architectures = checkpoint.config["architectures"]
    if not {CAUSAL, CLASSIFIER} & set(architectures):
        raise BadModel(
            f"{path} is a {', '.join(architectures)}; rankd serves Qwen3-Reranker "
            f"({CAUSAL}, or converted {CLASSIFIER})"
        )
    label_names = checkpoint.config.get("id2label") or [0]
    labels = checkpoint.config.get("num_labels", len(label_names))
    if checkpoint.is_classifier and labels != 1:
        raise BadModel(f"{path} has {labels} labels; a converted Qwen3-Reranker has one")
    if not checkpoint.weights:
        raise BadModel(f"{path} has no weights: model.safetensors is missing, whole or sharded")
    for file in [*checkpoint.weights, path / "tokenizer.json"]:
        if not file.is_file():
            raise BadModel(f"{path} lacks {file.name}")
    _ = checkpoint.statement  # Read now, because it may refuse the checkpoint.
    return checkpoint


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise BadModel(f"{index} is not a valid index of weight files: {problem!r}") from None


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise BadModel(f"{path} is not a model folder: it has no config.json")
    try:
        config = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as problem:
        raise BadModel(f"{file} is not valid JSON: {problem}") from None
    if not isinstance(config, dict):
        raise BadModel(f"{file} does not hold a JSON object")
    architectures = config.setdefault("architectures", None) or ["none named"]
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise BadModel(f"{file}: architectures must be a list of names, not {architectures!r}")
    config["architectures"] = architectures
    for name in ("max_position_embeddings", "vocab_size"):
        value = config.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise BadModel(f"{file}: {name} must be a positive integer, not {value!r}")
    return config
