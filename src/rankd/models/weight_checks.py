"""Refuses weights that are not those of a Qwen3 reranker, by the names and shapes of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankd.errors import BadModel
from rankd.models.adapter import LoraAdapter, shortened
from rankd.models.tensor_files import StoredTensor, have_equal_bytes

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"
SCORE = "score.weight"

FLOATS = ("F32", "F16", "BF16")

# Ends of the names that quantizers give to what belongs to a quantized matrix: FP8, MLX, GPTQ,
# AWQ, compressed-tensors, bitsandbytes.
_QUANTIZED = (
    *("_scale", "_scale_inv", ".scales", ".biases", "qweight", "qzeros", "g_idx", "_packed"),
    *("_scale_2", "absmax", "quant_state", "SCB"),
)

# Names of the two labels, in lower case; others do not say which one means relevant.
_NO = ("no", "false", "irrelevant", "not relevant", "not_relevant", "negative")
_YES = ("yes", "true", "relevant", "positive")


def check_names(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse names of an unmerged adapter or of a model without a head.

    Raises:
        BadModel: names the tensors and the next step.
    """
    unmerged = [name for name in tensors if _is_of_peft(name)]
    if unmerged:
        raise BadModel(
            f"{path} holds a model with an unmerged PEFT adapter ({shortened(unmerged)}); merge "
            "it where it was trained, with peft's merge_and_unload(), then save_pretrained()"
        )
    bare = "embed_tokens.weight"
    if bare in tensors and EMBEDDING not in tensors:
        raise BadModel(
            f"{path} is an embedding model or a bare Qwen3Model, without a head: its tensors are "
            f"named {bare} instead of {EMBEDDING}. rankd serves rerankers, such as "
            "Qwen/Qwen3-Reranker-0.6B"
        )


def _is_of_peft(name: str) -> bool:
    return name.startswith("base_model.") or any(
        part in name for part in (".modules_to_save.", ".lora_", ".base_layer.")
    )


def check_score_head(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse a classifier's head whose score rankd does not know how to read.

    Raises:
        BadModel: it has a bias, or other rows than config.json has labels.
    """
    if "score.bias" in tensors:
        raise BadModel(
            "the weights have a score.bias, which a Qwen3ForSequenceClassification lacks and "
            "transformers leaves out; train the head without a bias, or remove score.bias from "
            "the file if scores without it are right"
        )
    head = tensors.get(SCORE)
    labels = label_count(config)
    if head is None or head.shape[:1] == (labels,):
        return
    next_step = "a converted Qwen3-Reranker has one row"
    if head.shape[:1] == (2,):
        next_step = 'write "id2label": {"0": "no", "1": "yes"} into it, in the order of the rows'
    raise BadModel(
        f"{SCORE} is {list(head.shape)}, and config.json has {labels} "
        f"{'label' if labels == 1 else 'labels'}; {next_step}"
    )


def label_count(config: Mapping[str, Any]) -> int:
    """Labels of a classifier; 1 if config.json does not say.

    Raises:
        BadModel: config.json has no sensible number.
    """
    try:
        return int(config.get("num_labels", len(config.get("id2label") or [0])))
    except (TypeError, ValueError) as problem:
        raise BadModel(f"config.json: id2label or num_labels is malformed: {problem}") from None


def yes_label(config: Mapping[str, Any]) -> int:
    """Row of the label that means "relevant", of two: 0 or 1.

    Raises:
        BadModel: there are other than two labels, or their names do not tell.
    """
    names: Any = config.get("id2label")
    labels = label_count(config)
    if labels != 2:
        raise BadModel(f"config.json has {labels} labels; a converted Qwen3-Reranker has one")
    if isinstance(names, dict) and set(names) == {"0", "1"}:
        first, second = (str(names[index]).lower().strip() for index in "01")
        if first in _NO and second in _YES:
            return 1
        if first in _YES and second in _NO:
            return 0
    raise BadModel(
        f"config.json has 2 labels, and id2label = {names!r} does not say which one means "
        'relevant; write "id2label": {"0": "no", "1": "yes"}, in the order of the rows of '
        f"{SCORE}"
    )


def has_own_head(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the LM head differs from the embedding that config.json ties it to.

    Like transformers 5: such a head is used. Reads both tensors.
    """
    head, embedding = tensors.get(LM_HEAD), tensors.get(EMBEDDING)
    if not config.get("tie_word_embeddings") or head is None or embedding is None:
        return False
    return not have_equal_bytes(head, embedding)


def quantized_tensors(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Tensors that are quantized or belong to quantized ones: other types than 16 or 32 bits."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.dtype not in FLOATS or name.endswith(_QUANTIZED)
    ]


def quantization(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str | None:
    """How the checkpoint is quantized, or its other types; None if all is of 16 or 32 bits."""
    if config.get("quantization"):
        return f"MLX's quantization ({config['quantization']})"
    if stated := config.get("quantization_config"):
        method = stated.get("quant_method") if isinstance(stated, dict) else stated
        return f"quantized weights ({method})"
    if found := quantized_tensors(tensors):
        kinds = ", ".join(sorted({tensors[name].dtype for name in found} - set(FLOATS)))
        what = f"weights of type {kinds}" if kinds else "scales of quantized weights"
        return f"{what} ({shortened(found)})"
    return None


def check_adapter_of_tied_head(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], adapter: LoraAdapter
) -> None:
    """Refuse a LoRA on an LM head that is the embedding, too.

    Raises:
        BadModel: merging it would change the embedding with it.
    """
    tied = config.get("tie_word_embeddings") and LM_HEAD not in tensors
    if tied and "lm_head" in adapter.modules:
        raise BadModel(
            "the adapter has a LoRA on lm_head, which config.json ties to the embedding; merged, "
            "it would change both. Untie the base model (tie_word_embeddings false, and "
            "lm_head.weight in the file) and train the adapter on it again"
        )
