"""Reads a LoRA adapter that lies beside its base model; refuses adapters of other kinds.

What is written here of `adapter_config.json` holds for peft 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rankd.errors import BadModel
from rankd.models.json_files import read_json
from rankd.models.tensor_files import StoredTensor, read_headers

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# How peft spells the base model in names of tensors.
_PREFIX = "base_model.model."

# Keys of adapter_config.json that are read here, or that change no weights.
_KNOWN = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "eva_config"),
    *("exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("lora_alpha", "lora_dropout", "megatron_core", "modules_to_save", "peft_type"),
    *("peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules"),
    *("task_type", "use_rslora"),
    # Peft ignores it for linear layers, and Qwen3 has no others.
    "fan_in_fan_out",
}
# Others, such as "pissa", make peft change the base weights when it loads the adapter.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraAdapter:
    """A plain LoRA: to a matrix W it adds scaling * B @ A.

    Attributes:
        config: the parsed `adapter_config.json`.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.folder / WEIGHTS

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """By their names in the base model: `model.norm.weight`, `…q_proj.lora_A.weight`."""
        stored = read_headers([self.file])
        return {base_name(name): tensor for name, tensor in stored.items()}

    @cached_property
    def modules(self) -> frozenset[str]:
        """Modules with a LoRA, such as `model.layers.0.self_attn.q_proj`."""
        return frozenset(
            name.removesuffix(".lora_A.weight") for name in self.tensors if ".lora_A." in name
        )

    @cached_property
    def replaced(self) -> frozenset[str]:
        """Tensors that replace those of the base model: its `modules_to_save`, and an LM head
        with a LoRA, whose own weights peft stores besides.
        """
        return frozenset(name for name in self.tensors if ".lora_" not in name)

    @property
    def base(self) -> str:
        """The model that it was trained on, as its configuration says."""
        return str(self.config.get("base_model_name_or_path") or "an unnamed model")

    def rank(self, module: str) -> int:
        return int(self._by_pattern("rank_pattern", "r", module))

    def scaling(self, module: str) -> float:
        alpha, rank = self._by_pattern("alpha_pattern", "lora_alpha", module), self.rank(module)
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _by_pattern(self, patterns: str, default: str, module: str) -> float:
        """The value of the first pattern that matches the end of the module's name."""
        values: dict[str, float] = self.config.get(patterns) or {}
        for pattern, value in values.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return float(self.config.get(default, 8))

    def __str__(self) -> str:
        changed = f"{len(self.modules)} matrices"
        replaced = f" and {len(self.replaced)} whole tensors" if self.replaced else ""
        return f"LoRA adapter of {self.base}, merged into {changed}{replaced}"


def base_name(name: str) -> str:
    """The name of a tensor of the adapter as in the base model."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def read_adapter(folder: Path) -> LoraAdapter | None:
    """The adapter in a model folder; None without one.

    Raises:
        BadModel: it is no plain LoRA on linear layers, or its weights are missing.
    """
    if not (folder / CONFIG).is_file():
        return None
    adapter = LoraAdapter(folder, read_config(folder))
    try:
        reason = _unsupported(adapter.config) or _unmergeable(adapter)
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error) as problem:
        reason = f"has a value of the wrong type ({problem})"
    if reason:
        raise BadModel(
            f"{folder / CONFIG} {reason}; rankd merges plain LoRA adapters on linear layers "
            f"only. {merge_beside(folder, adapter.config)}"
        )
    return adapter


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `adapter_config.json`."""
    config: dict[str, Any] = read_json(folder / CONFIG)
    return config


def merge_alone(folder: Path, config: dict[str, Any]) -> str:
    """The next step for an adapter without its base model: a sentence with peft's command."""
    auto = _auto_class(config)
    options = ", num_labels=1" if auto.endswith("SequenceClassification") else ""
    return (
        f'Merge it: pip install peft && python -c "from peft import AutoPeft{auto} as M; '
        f"M.from_pretrained('{folder}'{options}).merge_and_unload().save_pretrained('merged')\"; "
        f"then {_SERVE_MERGED}"
    )


def merge_beside(folder: Path, config: dict[str, Any]) -> str:
    """The same for an adapter in the folder of its base model."""
    auto = _auto_class(config)
    return (
        f"Merge it: pip install peft && mkdir {folder}/adapter && mv {folder}/adapter_* "
        f'{folder}/adapter/ && python -c "from transformers import Auto{auto} as B; '
        f"from peft import PeftModel as M; M.from_pretrained(B.from_pretrained('{folder}'), "
        f"'{folder}/adapter').merge_and_unload().save_pretrained('merged')\"; "
        f"then {_SERVE_MERGED}"
    )


_SERVE_MERGED = "copy the base model's tokenizer.json into the folder merged, and serve that"


def _auto_class(config: dict[str, Any]) -> str:
    is_classifier = config.get("task_type") == "SEQ_CLS"
    return "ModelForSequenceClassification" if is_classifier else "ModelForCausalLM"


def _unsupported(config: dict[str, Any]) -> str | None:
    """What an adapter's configuration asks for that cannot be merged here; None if nothing."""
    if config.get("peft_type") != "LORA":
        return f"has peft_type {config.get('peft_type')!r}"
    if config.get("use_dora"):
        return "is a DoRA (use_dora)"
    if config.get("bias", "none") != "none":
        return f"trains biases (bias = {config['bias']!r})"
    if config.get("init_lora_weights") not in _PLAIN_INITS:
        return f"has init_lora_weights = {config['init_lora_weights']!r}, which changes the base"
    others = sorted(
        name
        for name in config.keys() - _KNOWN - {"bias", "init_lora_weights", "use_dora"}
        if config[name]
    )
    return f"sets {', '.join(others)}" if others else None


def _unmergeable(adapter: LoraAdapter) -> str | None:
    """What the adapter's tensors say against merging; None if nothing."""
    if not adapter.file.is_file():
        return f"has no {WEIGHTS} beside it"
    for name, tensor in adapter.tensors.items():
        if tensor.dtype not in ("F32", "F16", "BF16"):
            return f"has weights of type {tensor.dtype} ({name})"
    parts = {f"{module}.lora_{part}.weight" for module in adapter.modules for part in "AB"}
    if others := adapter.tensors.keys() - parts - adapter.replaced:
        return f"comes with weights that are not of linear layers: {shortened(others)}"
    if missing := parts - adapter.tensors.keys():
        return f"comes without the weights {shortened(missing)}"
    saved = adapter.config.get("modules_to_save") or []
    if not isinstance(saved, list):
        raise TypeError(f"modules_to_save = {saved!r} is not a list")
    modules = {name: name.removesuffix(".weight") for name in adapter.replaced}
    foreign = [
        name
        for name, module in modules.items()
        if not module.endswith(tuple(saved)) and module not in adapter.modules
    ]
    if foreign:
        return f"comes with weights that modules_to_save does not name: {shortened(foreign)}"
    wrong = [module for module in adapter.modules if not _has_its_rank(adapter, module)]
    return f"gives another rank than its weights have: {shortened(wrong)}" if wrong else None


def _has_its_rank(adapter: LoraAdapter, module: str) -> bool:
    into, out = (adapter.tensors[f"{module}.lora_{part}.weight"].shape for part in "AB")
    return len(into) == len(out) == 2 and into[0] == out[1] == adapter.rank(module)


def shortened(names: Iterable[str]) -> str:
    """The first three of some names, and how many there are besides."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
