"""Checkpoints that vLLM would read otherwise than transformers are refused; others pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankd.config.settings import Settings
from rankd.engines.vllm.args import engine_args
from rankd.engines.vllm.compatibility import refuse_known_bad
from rankd.engines.vllm.profiles import CUDA
from rankd.engines.vllm.versions import Release
from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds
from support.checkpoints import NO, YES, make_checkpoint

NEW, OLD = Release("0.33.0", (0, 33)), Release("0.31.1", (0, 31))
TINY: dict[str, Any] = {"vocab_size": 10_000, "hidden": 8, "layers": 1, "tokenizer": False}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
FP8 = {"quantization_config": {"quant_method": "fp8"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", **TINY)


def arguments(folder: Path, release: Release = NEW, **settings: Any) -> dict[str, Any]:
    checkpoint = locate(str(folder))
    answers = AnswerTokenIds(YES, NO)
    args = engine_args(checkpoint, answers, Settings(**settings), CUDA, release)
    refuse_known_bad(checkpoint, answers, CUDA, release, args)
    return args


def change_config(folder: Path, fields: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_weights(folder: Path, **changes: torch.Tensor) -> None:
    """`__` in a name stands for a dot."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name.replace("__", "."): t for name, t in changes.items()}, file)


def test_yarn_passes_and_allows_longer_prompts(folder: Path) -> None:
    change_config(folder, {"rope_scaling": YARN, "rope_theta": 1e6})

    assert arguments(folder, max_tokens=100_000)["max_model_len"] == 32768


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        (YARN | {"attention_factor": 0.5}, "YaRN with attention_factor"),
        (YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}, "YaRN with mscale"),
        (YARN | {"factor": None}, "YaRN with a factor of null"),
        ({"rope_type": "dynamic", "factor": 2.0}, "dynamic rotary scaling"),
    ],
    ids=str,
)
def test_rotary_scaling_that_vllm_computes_otherwise_is_refused(
    scaling: dict[str, Any], reason: str, folder: Path
) -> None:
    change_config(folder, {"rope_scaling": scaling, "rope_theta": 1e6})

    with pytest.raises(BadModel, match=f"{reason}.*use --engine native"):
        arguments(folder)


def test_a_head_of_its_own_under_a_tied_configuration_needs_vllm_0_32(folder: Path) -> None:
    change_weights(folder, lm_head__weight=torch.zeros(10_000, 8))

    arguments(folder, NEW)
    with pytest.raises(BadModel, match=r"vLLM 0\.31\.1 leaves out"):
        arguments(folder, OLD)


def test_an_embedding_that_is_stored_twice_passes_in_older_releases(folder: Path) -> None:
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(folder, lm_head__weight=embedding.clone())

    arguments(folder, OLD)


def test_two_labels_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", classifier=True, labels=2, **TINY)
    change_config(folder, {"id2label": {"0": "no", "1": "yes"}})

    with pytest.raises(BadModel, match="a classifier of two labels"):
        arguments(folder)


def test_an_adapter_beside_the_base_model_is_refused(folder: Path) -> None:
    a, b = torch.ones(2, 8), torch.ones(64, 2)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({name.format("A"): a, name.format("B"): b}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))

    with pytest.raises(BadModel, match="a LoRA adapter, which vLLM would leave out"):
        arguments(folder)


def quantize(folder: Path, module: str) -> None:
    weight = load_file(folder / "model.safetensors").get(f"{module}.weight", torch.zeros(9, 8))
    change_weights(
        folder,
        **{
            f"{module}.weight": weight.to(torch.float8_e4m3fn),
            f"{module}.weight_scale": torch.ones(1),
        },
    )


def test_fp8_that_the_configuration_states_passes(folder: Path) -> None:
    quantize(folder, "model.layers.0.mlp.up_proj")
    change_config(folder, FP8)

    assert arguments(folder)["dtype"] == "auto"


@pytest.mark.parametrize("file", ["hf_quant_config.json", "quant_model_description.json"])
def test_fp8_that_a_file_beside_it_states_passes(file: str, folder: Path) -> None:
    quantize(folder, "model.layers.0.mlp.up_proj")
    (folder / file).write_text("{}")

    arguments(folder)


def test_fp8_that_nothing_states_is_refused(folder: Path) -> None:
    quantize(folder, "model.layers.0.mlp.up_proj")

    with pytest.raises(BadModel, match=r"up_proj\.weight.* nothing that tells vLLM"):
        arguments(folder)
    arguments(folder, vllm_args={"quantization": "modelopt"})


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_a_quantized_head_is_refused_by_its_tensors(module: str, folder: Path) -> None:
    quantize(folder, module)
    change_config(folder, FP8)

    with pytest.raises(BadModel, match=f"has a quantized {module}"):
        arguments(folder)
