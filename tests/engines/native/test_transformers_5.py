"""What a config.json states of head and rotary embedding is computed as transformers 5 does."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankd.engines.native.rotary import frequencies
from rankd.errors import BadModel
from rankd.models.checkpoint import Checkpoint, locate
from rankd.models.rope import read_rope
from rankd.types import Prompt
from support.checkpoints import make_checkpoint
from support.native import native_model, score, transformers_logits

TINY: dict[str, Any] = {"vocab_size": 10_000, "hidden": 48, "tokenizer": False}

# The model's own length in these tests, so that prompts of 200 tokens lie beyond it.
ORIGINAL = 64
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}


def prompts(lengths: tuple[int, ...] = (5, 60, 100, 200, 250)) -> list[Prompt]:
    """Prompts of these many tokens, that share the first four."""
    dice = random.Random(7)
    prefix = tuple(dice.randrange(10_000) for _ in range(4))
    return [
        Prompt(prefix, tuple(dice.randrange(10_000) for _ in range(length - 4)))
        for length in lengths
    ]


def rewrite_config(folder: Path, changes: dict[str, Any]) -> Checkpoint:
    """Change keys of config.json; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return locate(str(folder))


def rewrite_weights(folder: Path, changes: dict[str, torch.Tensor]) -> Checkpoint:
    file = folder / "model.safetensors"
    save_file(load_file(file) | changes, file, metadata={"format": "pt"})
    return locate(str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", **TINY)


def version_4(**scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": scaling}


def version_5(**scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 1e6} | scaling}


ROPES: dict[str, dict[str, Any]] = {
    "yarn, v4": version_4(**YARN),
    "yarn, v5": version_5(**YARN),
    "yarn, v4, spelled type": version_4(type="yarn", factor=4.0),
    "yarn, original length at the top": version_5(rope_type="yarn", factor=2.0)
    | {"original_max_position_embeddings": 80},
    "yarn, factor null": version_5(**YARN | {"factor": None}) | {"max_position_embeddings": 256},
    "yarn, attention factor": version_4(**YARN, attention_factor=0.7),
    "yarn, mscale": version_5(**YARN, mscale=1.0, mscale_all_dim=0.5),
    "yarn, betas, not truncated": version_5(**YARN, beta_fast=16, beta_slow=2, truncate=False),
    "rope_scaling beside rope_parameters": version_5(rope_type="default")
    | {"rope_scaling": YARN | {"rope_theta": 1e6}},
    "theta at the top beside rope_parameters": version_5(rope_type="default")
    | {"rope_scaling": YARN, "rope_theta": 5e5},
    "linear": version_4(rope_type="linear", factor=3.0),
    "dynamic": version_4(rope_type="dynamic", factor=3.0),
    "llama3": version_5(
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=ORIGINAL,
    ),
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
def test_scaled_rotary_embeddings_score_as_in_transformers(
    rope: dict[str, Any], folder: Path
) -> None:
    checkpoint = rewrite_config(folder, {"max_position_embeddings": 512} | rope)

    expected = transformers_logits(checkpoint, prompts())

    assert score(native_model(checkpoint), prompts()) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES.keys())
def test_frequencies_are_those_of_transformers_to_the_bit(rope: dict[str, Any]) -> None:
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    config = json.loads(json.dumps({"max_position_embeddings": 512, "head_dim": 128} | rope))
    ours, factor = frequencies(read_rope(config), head_dim=128)
    theirs = Qwen3RotaryEmbedding(Qwen3Config.from_dict(config))

    assert ours.equal(theirs.inv_freq)
    assert factor == theirs.attention_scaling


@pytest.mark.parametrize("name", [name for name in ROPES if name not in ("dynamic",)])
def test_each_scaling_changes_the_scores(name: str, folder: Path) -> None:
    """Otherwise the comparison with transformers would prove nothing."""
    long = prompts((250,))
    plain = score(native_model(locate(str(folder))), long)
    scaled = rewrite_config(folder, {"max_position_embeddings": 512} | ROPES[name])

    assert score(native_model(scaled), long) != pytest.approx(plain, abs=2e-3)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, 40960),
        (version_4(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072),
        (version_5(rope_type="yarn", factor=2.0), 81920),
        (version_4(rope_type="dynamic", factor=4.0), 40960),
    ],
)
def test_the_longest_prompt_follows_the_scaling(
    config: dict[str, Any], limit: int, folder: Path
) -> None:
    assert rewrite_config(folder, config).max_tokens == limit


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (version_4(rope_type="longrope", factor=4.0), "rotary scaling of type 'longrope'"),
        (version_4(rope_type="mrope", mrope_section=[1]), "rotary scaling of type 'mrope'"),
        (version_4(rope_type="linear"), "lacks factor"),
        (version_4(rope_type="yarn", factor="4"), "factor must be a positive number, not '4'"),
        (version_5(rope_type="yarn", factor=-1), "factor must be a positive number, not -1"),
        (version_5(partial_rotary_factor=0.5), "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "full_attention"),
        (version_4(**YARN, attn_factor=0.8), "attn_factor in its rotary scaling"),
        ({"rope_scaling": "yarn"}, "rope_scaling must be an object"),
        (
            version_5(rope_type="default") | {"rope_scaling": YARN},
            "copy rope_theta into rope_scaling",
        ),
    ],
)
def test_other_rotary_embeddings_are_refused_by_name(
    config: dict[str, Any], reason: str, folder: Path
) -> None:
    with pytest.raises(BadModel) as refusal:
        rewrite_config(folder, config)

    assert reason in str(refusal.value)


def test_transformers_leaves_a_theta_in_rope_parameters_unread_beside_rope_scaling() -> None:
    """Why such a configuration is refused: it would be computed with another theta."""
    from transformers import Qwen3Config

    config = Qwen3Config.from_dict(version_5(rope_type="default") | {"rope_scaling": dict(YARN)})

    assert (config.rope_parameters or {})["rope_theta"] == 10_000.0


def test_a_tied_model_with_a_head_of_its_own_scores_as_in_transformers(folder: Path) -> None:
    before = score(native_model(locate(str(folder))), prompts())
    head = torch.randn(10_000, 48, generator=torch.Generator().manual_seed(1)) * 0.2
    checkpoint = rewrite_weights(folder, {"lm_head.weight": head})

    expected = transformers_logits(checkpoint, prompts())

    assert score(native_model(checkpoint), prompts()) == pytest.approx(expected, abs=1e-3)
    assert expected != pytest.approx(before, abs=0.1)
    assert checkpoint.statement.notes == (
        "read model.safetensors: lm_head.weight differs from the embedding, and is used although "
        "config.json ties them",
    )


def test_a_tied_model_that_stores_its_embedding_twice_is_nothing_special(folder: Path) -> None:
    before = score(native_model(locate(str(folder))), prompts())
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    checkpoint = rewrite_weights(folder, {"lm_head.weight": embedding.clone()})

    assert score(native_model(checkpoint), prompts()) == before
    assert checkpoint.statement.notes == ()


def test_the_notes_name_the_scaling(folder: Path) -> None:
    scaled = rewrite_config(folder, version_4(**YARN))

    assert scaled.statement.notes == (
        "read config.json: rotary scaling yarn: 64 tokens times 4; prompts of up to 256",
    )


@pytest.mark.parametrize("names", [("no", "yes"), ("True", "False"), ("irrelevant", "relevant")])
def test_a_head_of_two_labels_scores_as_their_difference(
    names: tuple[str, str], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model", classifier=True, labels=2, **TINY)
    checkpoint = rewrite_config(folder, {"id2label": dict(zip("01", names, strict=True))})
    sign = -1 if names[0] == "True" else 1

    expected = [sign * logit for logit in transformers_logits(checkpoint, prompts())]

    assert score(native_model(checkpoint), prompts()) == pytest.approx(expected, abs=1e-3)
    assert checkpoint.statement.notes == (
        f"read config.json: the logit is that of label {int(sign > 0)} minus the other's",
    )
