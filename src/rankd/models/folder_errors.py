"""Says what a folder or a file holds instead of a checkpoint, and what to do next."""

from __future__ import annotations

from pathlib import Path

from rankd.models import adapter

_ORIGINAL = "take the original in safetensors format, such as Qwen/Qwen3-Reranker-0.6B"


def of_file(file: Path) -> str:
    """Why a file is no model."""
    if file.suffix == ".gguf":
        return f"{file} is a GGUF file, which rankd does not read; {_ORIGINAL}"
    return f"{file} is a file; MODEL is the folder that holds it, such as {file.parent}"


def without_config(folder: Path) -> str:
    """Why a folder without config.json is no model."""
    if (folder / adapter.CONFIG).is_file():
        return _adapter_alone(folder)
    if _is_gguf(folder):
        return f"{folder} holds GGUF files, which rankd does not read; {_ORIGINAL}"
    return f"{folder} is not a model folder: it has no config.json"


def without_weights(folder: Path, architectures: list[str]) -> str:
    """Why a folder has no safetensors files."""
    if (folder / adapter.CONFIG).is_file():
        return _adapter_alone(folder)
    if _is_gguf(folder):
        return f"{folder} holds GGUF files, which rankd does not read; {_ORIGINAL}"
    others = sorted(
        file.name
        for pattern in ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.npz", "*.h5")
        for file in folder.glob(pattern)
    )
    if any(name.startswith("pytorch_model") for name in others):
        return (
            f"{folder} has its weights in {others[0]}, which rankd does not read; convert it: "
            "pip install transformers && python -c "
            f'"from transformers import {architectures[0]} as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    if others:
        return f"{folder} has its weights in {others[0]}, which rankd does not read; {_ORIGINAL}"
    return (
        f"{folder} has no weights: model.safetensors is missing, whole or sharded; "
        "download the folder again with all its files, or convert weights of another format"
    )


def without_tokenizer(folder: Path) -> str:
    """Why a folder has no tokenizer.json."""
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return (
            f"{folder} lacks tokenizer.json; make it from vocab.json and merges.txt: "
            "pip install transformers && python -c "
            '"from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    return f"{folder} lacks tokenizer.json; copy it from the model that this one was made from"


def _is_gguf(folder: Path) -> bool:
    """Whether it has GGUF files. Those of the hub are not downloaded, but are in the name."""
    return any(folder.glob("*.gguf")) or "-gguf" in str(folder).lower()


def _adapter_alone(folder: Path) -> str:
    config = adapter.read_config(folder)
    base = config.get("base_model_name_or_path") or "a base model that it does not name"
    kind = "LoRA" if config.get("peft_type") == "LORA" else f"PEFT ({config.get('peft_type')})"
    return (
        f"{folder} is a {kind} adapter of {base}, without the weights of that model. "
        f"{adapter.merge_alone(folder, config)}"
    )
