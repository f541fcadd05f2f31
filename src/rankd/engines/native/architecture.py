"""Read the model's dimensions from `config.json`; refuse what the native engine cannot compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankd.errors import BadModel
from rankd.models.checkpoint import CLASSIFIER, Checkpoint
from rankd.models.rope import RopeScaling, read_rope
from rankd.models.weight_checks import label_count, quantization, yes_label


@dataclass(frozen=True, slots=True)
class Architecture:
    """Dimensions and constants of a Qwen3 model.

    Attributes:
        heads: query heads of one layer.
        kv_heads: key-value heads of one layer; each serves `heads // kv_heads` query heads.
        head_dim: width of one attention head.
        mlp_size: width of the MLP between its two projections.
        norm_eps: epsilon of every RMSNorm.
        rope: the rotary embedding.
        tied: the LM head shares the embedding's weights. None: decided by whether the
            weights contain `lm_head.weight`.
        classifier: the model has `score` rows instead of an LM head.
        labels: rows of `score`, 1 or 2.
        yes_label: of two rows, the one that means "relevant".
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    norm_eps: float
    rope: RopeScaling
    tied: bool | None
    classifier: bool
    labels: int = 1
    yes_label: int = 0


# Field -> key of config.json, for numbers that must be at least 1.
_POSITIVE = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_size": "intermediate_size",
}


def read_architecture(config: dict[str, Any]) -> Architecture:
    """Read the architecture of a Qwen3 model from its `config.json`.

    Raises:
        BadModel: a key is missing or malformed, or asks for an unsupported feature.
    """
    try:
        _refuse_unsupported(config)
        heads = int(config["num_attention_heads"])
        classifier = CLASSIFIER in config["architectures"]
        labels = label_count(config) if classifier else 1
        architecture = Architecture(
            vocab_size=int(config["vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or 128),
            mlp_size=int(config["intermediate_size"]),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope=read_rope(config),
            tied=config.get("tie_word_embeddings"),
            classifier=classifier,
            labels=labels,
            yes_label=yes_label(config) if labels != 1 else 0,
        )
    except KeyError as missing:
        raise BadModel(f"config.json lacks {missing.args[0]}") from None
    except (ValueError, TypeError, AttributeError) as problem:
        raise BadModel(f"config.json has a value of the wrong type: {problem}") from None
    _check_numbers(architecture)
    return architecture


def _check_numbers(architecture: Architecture) -> None:
    for field, key in _POSITIVE.items():
        value = getattr(architecture, field)
        if value < 1:
            raise BadModel(f"config.json says {key} = {value}; it must be positive")
    heads, kv_heads = architecture.heads, architecture.kv_heads
    if heads % kv_heads:
        raise BadModel(
            f"{heads} query heads cannot share {kv_heads} key-value heads evenly; "
            "check num_attention_heads and num_key_value_heads in config.json"
        )


def _refuse_unsupported(config: dict[str, Any]) -> None:
    unsupported = None
    if config.get("attention_bias"):
        unsupported = "biases in attention"
    elif config.get("use_sliding_window") and config.get("sliding_window"):
        unsupported = "sliding-window attention"
    elif set(config.get("layer_types") or ()) - {"full_attention"}:
        unsupported = f"layers of type {', '.join(sorted(set(config['layer_types'])))}"
    elif config.get("hidden_act", "silu") != "silu":
        unsupported = f"the activation {config['hidden_act']!r}"
    if unsupported:
        raise BadModel(
            f"the native engine cannot compute this model: config.json asks for {unsupported}"
        )


def refuse_quantized(checkpoint: Checkpoint) -> None:
    """Raise BadModel if the weights are quantized."""
    if kind := quantization(checkpoint.config, checkpoint.tensors):
        raise BadModel(
            f"{checkpoint.path} has {kind}; the native engine reads float32, bfloat16 and float16. "
            "Take the original model, or serve this one with --engine vllm if vLLM reads it"
        )
