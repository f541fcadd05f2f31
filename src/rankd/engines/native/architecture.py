"""Read the model's dimensions from `config.json`; refuse what the native engine cannot compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankd.errors import BadModel
from rankd.models.checkpoint import CLASSIFIER


@dataclass(frozen=True, slots=True)
class Architecture:
    """Dimensions and constants of a Qwen3 model.

    Attributes:
        heads: query heads of one layer.
        kv_heads: key-value heads of one layer; each serves `heads // kv_heads` query heads.
        head_dim: width of one attention head.
        mlp_size: width of the MLP between its two projections.
        norm_eps: epsilon of every RMSNorm.
        rope_theta: base of the rotary embedding.
        tied: the LM head shares the embedding's weights. None: decided by whether the
            weights contain `lm_head.weight`.
        classifier: the model has one `score` row instead of an LM head.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    norm_eps: float
    rope_theta: float
    tied: bool | None
    classifier: bool


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
        architecture = Architecture(
            vocab_size=int(config["vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or 128),
            mlp_size=int(config["intermediate_size"]),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope_theta=_rope_theta(config),
            tied=config.get("tie_word_embeddings"),
            classifier=CLASSIFIER in config["architectures"],
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
    rope = _rope(config)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        unsupported = f"rotary scaling of type {rope_type!r}"
    elif config.get("attention_bias"):
        unsupported = "biases in attention"
    elif config.get("use_sliding_window") and config.get("sliding_window"):
        unsupported = "sliding-window attention"
    elif set(config.get("layer_types") or ()) - {"full_attention"}:
        unsupported = f"layers of type {', '.join(sorted(set(config['layer_types'])))}"
    elif config.get("hidden_act", "silu") != "silu":
        unsupported = f"the activation {config['hidden_act']!r}"
    elif config.get("quantization_config"):
        unsupported = "quantised weights"
    if unsupported:
        raise BadModel(
            f"the native engine cannot compute this model: config.json asks for {unsupported}"
        )


def _rope_theta(config: dict[str, Any]) -> float:
    # Transformers 5 writes it into `rope_parameters`; the published files have it at the top.
    return float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}
