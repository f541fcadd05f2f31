"""What `config.json` asks to be computed; what is not computed here is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankd.errors import BadModel
from rankd.models.checkpoint import CLASSIFIER


@dataclass(frozen=True, slots=True)
class Architecture:
    """Numbers of a Qwen3 model.

    Attributes:
        kv_heads: each serves `heads // kv_heads` query heads.
        tied: the language model's head is the embedding; None: the file decides.
        classifier: one `score` row instead of the language model's head.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    eps: float
    theta: float
    tied: bool | None
    classifier: bool


def read_architecture(config: dict[str, Any]) -> Architecture:
    """Read the numbers of a Qwen3 model.

    Raises:
        BadModel: one is missing, or it asks for something that is not computed here.
    """
    try:
        _refuse(config)
        heads = int(config["num_attention_heads"])
        shape = Architecture(
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or 128),
            mlp=int(config["intermediate_size"]),
            eps=float(config.get("rms_norm_eps", 1e-6)),
            theta=_theta(config),
            tied=config.get("tie_word_embeddings"),
            classifier=CLASSIFIER in config["architectures"],
        )
    except KeyError as missing:
        raise BadModel(f"config.json lacks {missing.args[0]}") from None
    except (ValueError, TypeError, AttributeError) as problem:
        raise BadModel(f"config.json holds something of the wrong kind: {problem}") from None
    for name in ("vocabulary", "hidden", "layers", "heads", "kv_heads", "head_dim", "mlp"):
        if getattr(shape, name) < 1:
            raise BadModel(f"config.json says {name} = {getattr(shape, name)}; it must be positive")
    if shape.heads % shape.kv_heads:
        raise BadModel(f"{shape.heads} query heads cannot share {shape.kv_heads} key-value heads")
    return shape


def _refuse(config: dict[str, Any]) -> None:
    wrong = None
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        wrong = f"rotary scaling of type {kind!r}"
    elif config.get("attention_bias"):
        wrong = "biases in its attention"
    elif config.get("use_sliding_window") and config.get("sliding_window"):
        wrong = "sliding-window attention"
    elif set(config.get("layer_types") or ()) - {"full_attention"}:
        wrong = f"layers of type {', '.join(sorted(set(config['layer_types'])))}"
    elif config.get("hidden_act", "silu") != "silu":
        wrong = f"the activation {config['hidden_act']!r}"
    elif config.get("quantization_config"):
        wrong = "quantised weights"
    if wrong:
        raise BadModel(f"the native engine cannot compute this model: config.json asks for {wrong}")


def _theta(config: dict[str, Any]) -> float:
    # Transformers 5 moved it into `rope_parameters`; the published files have it on top.
    return float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}
