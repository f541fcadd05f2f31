"""Finds a model folder, and checks that rankd can serve the checkpoint in it."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadModel
from rankd.models import folder_errors, weight_checks
from rankd.models.adapter import CONFIG as ADAPTER_CONFIG
from rankd.models.adapter import LoraAdapter, read_adapter
from rankd.models.download import download
from rankd.models.json_files import read_json
from rankd.models.rope import read_rope
from rankd.models.statement import Statement, read_statement
from rankd.models.tensor_files import StoredTensor, read_headers, refuse_lfs_pointer

BUILTIN = "builtin"
CAUSAL = "Qwen3ForCausalLM"
CLASSIFIER = "Qwen3ForSequenceClassification"

# From the hub id, the revision and the event that stops it.
Download = Callable[[str, str | None, threading.Event], Path]

_SHA256 = re.compile(r"[0-9a-f]{64}")

# The hub's name of a model, from the folder of its cache: models--me--X.
_CACHED = re.compile(r"models--([^/]+?)--([^/]+)")


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a Qwen3 reranker in Hugging Face's layout.

    Attributes:
        name: `builtin`, the hub id, or the folder's name. A folder in the hub's cache has the
            hub id of its model.
        config: the parsed `config.json`.
    """

    path: Path
    name: str
    config: dict[str, Any]

    @property
    def is_classifier(self) -> bool:
        """Whether it was converted to a classifier: `score` rows instead of an LM head."""
        return CLASSIFIER in self.config.get("architectures", ())

    @property
    def max_tokens(self) -> int:
        """Maximum length of a prompt, in tokens; rotary scaling included."""
        return read_rope(self.config).max_tokens

    @cached_property
    def weights(self) -> list[Path]:
        """The safetensors files; several if the checkpoint is sharded, none if it lacks weights."""
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            return [self.path / name for name in _shards(index)]
        single = self.path / "model.safetensors"
        return [single] if single.is_file() else []

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors of the weights by name, the adapter's not among them."""
        return read_headers(self.weights)

    @cached_property
    def adapter(self) -> LoraAdapter | None:
        """The LoRA adapter in the folder, which the native engine merges when it loads."""
        return read_adapter(self.path)

    @cached_property
    def has_own_head(self) -> bool:
        """Whether the LM head differs from the embedding that config.json ties it to."""
        return weight_checks.has_own_head(self.config, self.tensors)

    @property
    def yes_label(self) -> int | None:
        """Row of "relevant" in a classifier's head of two rows; None: it has one row."""
        one = not self.is_classifier or weight_checks.label_count(self.config) == 1
        return None if one else weight_checks.yes_label(self.config)

    @cached_property
    def statement(self) -> Statement:
        """What the folder states of prompt and score.

        Raises:
            BadModel: it states what rankd cannot compute.
        """
        statement = read_statement(self.path, self.config)
        return replace(statement, notes=(*self._weight_notes, *statement.notes))

    @property
    def _weight_notes(self) -> tuple[str, ...]:
        """What a plain Qwen3-Reranker lacks: `read FILE: what follows`."""
        rope, yes = read_rope(self.config), self.yes_label
        lines = []
        if rope.is_scaled:
            lines.append(f"read config.json: rotary scaling {rope}")
        if yes is not None:
            lines.append(f"read config.json: the logit is that of label {yes} minus the other's")
        if self.has_own_head:
            lines.append(
                f"read {self.tensors[weight_checks.LM_HEAD].file.name}: lm_head.weight differs "
                "from the embedding, and is used although config.json ties them"
            )
        if self.adapter is not None:
            lines.append(f"read {ADAPTER_CONFIG}: {self.adapter}")
        return tuple(lines)

    @property
    def _digested(self) -> list[Path]:
        """Files that scores depend on, the text files of the prompt not among them."""
        if self.adapter is None:
            return self.weights
        return [*self.weights, self.path / ADAPTER_CONFIG, self.adapter.file]

    @cached_property
    def revision(self) -> str:
        """Twelve hex digits that change with the configuration or the start of a weights file.

        Reads 1 MiB of each file.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for file in self._digested:
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
        for file in self._digested:
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
    model: str,
    revision: str | None = None,
    cancelled: threading.Event | None = None,
    fetch: Download = download,
) -> Checkpoint:
    """Find a model by its name, and download it if necessary.

    Args:
        model: `builtin`, a folder, or a hub id such as `Qwen/Qwen3-Reranker-0.6B`. A hub id
            is downloaded into the hub's cache unless it is there.
        revision: branch, tag or commit of a hub id.
        cancelled: stops the download when it is set.
        fetch: gives the folder of a hub id.

    Raises:
        BadModel: there is no such folder or hub id, files are missing, or it is not a
            Qwen3-Reranker.
    """
    if model == BUILTIN:
        return _inspect(Path(__file__).parent / "builtin", BUILTIN)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _inspect(folder, _name(folder))
    if folder.exists():
        raise BadModel(folder_errors.of_file(folder))
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return _inspect(fetch(model, revision, cancelled or threading.Event()), model)
    raise BadModel(
        f"no model folder at {model!r}; MODEL is {BUILTIN!r}, a folder with a Qwen3-Reranker "
        "checkpoint, or a hub id such as Qwen/Qwen3-Reranker-0.6B"
    )


def _name(folder: Path) -> str:
    """The hub id of a folder in the hub's cache, `…/models--me--X/snapshots/…`, or its name."""
    path = folder.resolve()
    cached = _CACHED.fullmatch(path.parent.parent.name)
    return "/".join(cached.groups()) if cached and path.parent.name == "snapshots" else path.name


def _inspect(path: Path, name: str) -> Checkpoint:
    checkpoint = Checkpoint(path, name, _read_config(path))
    _check_architecture(checkpoint)
    if not checkpoint.weights:
        raise BadModel(folder_errors.without_weights(path, checkpoint.config["architectures"]))
    for file in checkpoint.weights:
        if not file.is_file():
            raise BadModel(f"{path} lacks {file.name}; download it again, with all files")
    _check_tokenizer(path)
    _check_weights(checkpoint)
    _ = checkpoint.statement  # Read now, because it may refuse the checkpoint.
    return checkpoint


def _check_architecture(checkpoint: Checkpoint) -> None:
    path, architectures = checkpoint.path, checkpoint.config["architectures"]
    if not architectures:
        raise BadModel(
            f"{path}/config.json names no architecture; if this is a Qwen3-Reranker, write "
            f'"architectures": ["{CAUSAL}"] into it, or ["{CLASSIFIER}"] if the weights '
            f"have {weight_checks.SCORE}"
        )
    if not {CAUSAL, CLASSIFIER} & set(architectures):
        raise BadModel(
            f"{path} is a {', '.join(architectures)}; rankd serves Qwen3-Reranker "
            f"({CAUSAL}, or converted {CLASSIFIER})"
        )
    read_rope(checkpoint.config)
    if checkpoint.is_classifier and weight_checks.label_count(checkpoint.config) != 1:
        weight_checks.yes_label(checkpoint.config)


def _check_tokenizer(path: Path) -> None:
    file = path / "tokenizer.json"
    if not file.is_file():
        raise BadModel(folder_errors.without_tokenizer(path))
    refuse_lfs_pointer(file)


def _check_weights(checkpoint: Checkpoint) -> None:
    config, tensors = checkpoint.config, checkpoint.tensors
    weight_checks.check_names(checkpoint.path, tensors)
    if checkpoint.is_classifier:
        weight_checks.check_score_head(config, tensors)
    if config.get("quantization"):
        raise BadModel(
            f"{checkpoint.path} has {weight_checks.quantization(config, tensors)}, which no engine "
            "here reads; take the original model that it was made from, such as "
            "Qwen/Qwen3-Reranker-0.6B"
        )
    if checkpoint.adapter is not None:
        weight_checks.check_adapter_of_tied_head(config, tensors, checkpoint.adapter)


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise BadModel(f"{index} is not a valid index of weight files: {problem!r}") from None


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise BadModel(folder_errors.without_config(path))
    refuse_lfs_pointer(file)
    config: dict[str, Any] = read_json(file)
    architectures = config.setdefault("architectures", None) or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise BadModel(f"{file}: architectures must be a list of names, not {architectures!r}")
    config["architectures"] = architectures
    for name in ("max_position_embeddings", "vocab_size"):
        value = config.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise BadModel(f"{file}: {name} must be a positive integer, not {value!r}")
    return config
