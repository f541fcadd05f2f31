"""Reading config.json: dimensions, and unsupported features that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from rankd.engines.native.architecture import read_architecture
from rankd.errors import BadModel

# Qwen3-Reranker-0.6B, as published.
PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151669,
}


def test_the_published_configuration_is_read() -> None:
    architecture = read_architecture(PUBLISHED)

    assert (
        architecture.heads,
        architecture.kv_heads,
        architecture.head_dim,
        architecture.layers,
    ) == (16, 8, 128, 28)
    assert (
        architecture.rope.theta,
        architecture.norm_eps,
        architecture.tied,
        architecture.classifier,
    ) == (1e6, 1e-6, True, False)


def test_rope_theta_is_read_from_where_transformers_5_writes_it() -> None:
    config = PUBLISHED | {"rope_parameters": {"rope_theta": 5e6, "rope_type": "default"}}
    del config["rope_theta"]

    assert read_architecture(config).rope.theta == 5e6


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "'longrope'"),
        ({"attention_bias": True}, "biases"),
        ({"use_sliding_window": True, "sliding_window": 4096}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"hidden_act": "gelu"}, "'gelu'"),
    ],
)
def test_an_unsupported_feature_is_refused_by_name(change: dict[str, Any], feature: str) -> None:
    with pytest.raises(BadModel, match=r"config\.json asks for") as refusal:
        read_architecture(PUBLISHED | change)

    assert feature in str(refusal.value)


def test_a_missing_key_is_named() -> None:
    config = {key: value for key, value in PUBLISHED.items() if key != "hidden_size"}

    with pytest.raises(BadModel, match="lacks hidden_size"):
        read_architecture(config)


def test_a_number_below_one_is_named_as_in_config_json() -> None:
    with pytest.raises(BadModel, match=r"num_hidden_layers = 0; it must be positive"):
        read_architecture(PUBLISHED | {"num_hidden_layers": 0})


def test_heads_that_cannot_be_shared_evenly_are_refused() -> None:
    with pytest.raises(BadModel, match="16 query heads cannot share 5"):
        read_architecture(PUBLISHED | {"num_key_value_heads": 5})
