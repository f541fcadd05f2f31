"""A LoRA adapter beside its base model scores as after peft's merge_and_unload."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file

from rankd.config.settings import Settings
from rankd.engines import open_engine
from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES, make_checkpoint
from support.native import logits_of, native_model, score

TINY: dict[str, Any] = {"vocab_size": 10_000, "hidden": 48, "tokenizer": False}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [
    Prompt((1, 2, 3), tuple(range(start, start + length)))
    for start, length in ((9, 1), (50, 7), (700, 40), (5000, 90))
]


def train(folder: Path, **options: Any) -> list[float]:
    """Write an adapter with random weights into the folder of its base model.

    Args:
        options: of peft's LoraConfig.

    Returns:
        Logits of `PROMPTS` after peft's merge_and_unload.
    """
    first, second = _base(folder), _base(folder)
    task = TaskType.SEQ_CLS if locate(str(folder)).is_classifier else TaskType.CAUSAL_LM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Peft's advice on tied layers.
        config = LoraConfig(task_type=task, **{"target_modules": LINEAR} | options)
        model = get_peft_model(first, config)
        _randomize(model)
        model.save_pretrained(str(folder))
        merged = PeftModel.from_pretrained(second, folder).merge_and_unload()
    return logits_of(merged, PROMPTS, is_classifier=task == TaskType.SEQ_CLS)


def _base(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    is_classifier = locate(str(folder)).is_classifier
    auto = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32)


def _randomize(model: Any) -> None:
    """B is zero at first, and whole tensors equal those of the base model."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.15 * torch.randn(parameter.shape, generator=generator)


def ours(folder: Path) -> list[float]:
    return score(native_model(locate(str(folder))), PROMPTS)


def change_config(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", **TINY)


ADAPTERS: dict[str, dict[str, Any]] = {
    "rank 8": {"lora_alpha": 16},
    "one matrix": {"target_modules": ["q_proj"], "r": 2},
    "all linear": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True, "r": 4, "lora_alpha": 3},
    "patterns": {
        "rank_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 5},
        "alpha_pattern": {"v_proj": 1, r".*\.0\.mlp\..*": 20},
    },
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "fan_in_fan_out, which peft ignores for linear layers": {"fan_in_fan_out": True},
    "initialised otherwise": {"init_lora_weights": "gaussian"},
    "own head": {"modules_to_save": ["lm_head"]},
    "own embedding": {"modules_to_save": ["embed_tokens"]},
    "own embedding, head and norms": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
}


@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_an_adapter_scores_as_merged_by_peft(options: dict[str, Any], folder: Path) -> None:
    before = ours(folder)
    expected = train(folder, **options)

    assert ours(folder) == pytest.approx(expected, abs=1e-3)
    assert expected != pytest.approx(before, abs=0.01)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ({"classifier": True}, {}),
        ({"classifier": True, "labels": 2}, {}),
        ({"tied": False}, {"target_modules": ["lm_head", "o_proj"]}),
        ({"tied": False}, {"modules_to_save": ["lm_head"]}),
        ({"tied": False, "sharded": True}, {"modules_to_save": ["embed_tokens"]}),
    ],
    ids=str,
)
def test_adapters_of_other_models_score_as_merged_by_peft(
    model: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model", **TINY | model)
    if model.get("labels") == 2:
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {"0": "no", "1": "yes"}
        (folder / "config.json").write_text(json.dumps(config))
    expected = train(folder, **options)

    assert ours(folder) == pytest.approx(expected, abs=1e-3)


@pytest.mark.anyio
async def test_the_engine_process_merges_the_adapter(folder: Path) -> None:
    expected = train(folder)
    settings = Settings(engine="native", device="cpu", max_tokens=512)

    async with open_engine(locate(str(folder)), AnswerTokenIds(YES, NO), settings) as engine:
        assert await engine.score(PROMPTS) == pytest.approx(expected, abs=1e-3)


def test_a_base_in_bfloat16_is_merged_in_float32(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", dtype="bfloat16", **TINY)
    expected = train(folder)

    assert ours(folder) == pytest.approx(expected, abs=1e-3)


def test_the_notes_name_the_base_and_the_digests_change_with_the_adapter(folder: Path) -> None:
    before = locate(str(folder))
    digests = before.revision, before.fingerprint()
    train(folder, modules_to_save=["lm_head"])
    merged = locate(str(folder))
    with_adapter = merged.revision, merged.fingerprint()
    change_config(folder, lora_alpha=99)
    changed = locate(str(folder))

    assert merged.statement.notes == (
        f"read adapter_config.json: LoRA adapter of {folder}, merged into 14 matrices and 1 whole "
        "tensors",
    )
    assert len({digests[0], with_adapter[0], changed.revision}) == 3
    assert len({digests[1], with_adapter[1], changed.fingerprint()}) == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "LOHA"}, "has peft_type 'LOHA'"),
        ({"peft_type": "IA3"}, "has peft_type 'IA3'"),
        ({"bias": "all"}, "trains biases (bias = 'all')"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "sets layer_replication"),
        ({"use_a_thing_of_peft_1": 1}, "sets use_a_thing_of_peft_1"),
        ({"r": 4}, "gives another rank than its weights have"),
        ({"modules_to_save": "lm_head"}, "has a value of the wrong type"),
        ({"lora_alpha": None, "r": None}, "has a value of the wrong type"),
        ({"r": "x"}, "has a value of the wrong type"),
        ({"rank_pattern": {"(": 8}}, "has a value of the wrong type"),
    ],
    ids=str,
)
def test_other_adapters_are_refused_with_pefts_command(
    fields: dict[str, Any], reason: str, folder: Path
) -> None:
    train(folder)
    change_config(folder, **fields)

    with pytest.raises(BadModel) as refusal:
        locate(str(folder))

    assert reason in str(refusal.value)
    assert f"'{folder}/adapter').merge_and_unload().save_pretrained" in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target_modules": ["embed_tokens"]}, "weights that are not of linear layers"),
        ({"target_modules": ["lm_head"]}, "a LoRA on lm_head, which config.json ties"),
    ],
    ids=str,
)
def test_adapters_of_a_tied_embedding_are_refused(
    options: dict[str, Any], reason: str, folder: Path
) -> None:
    train(folder, **options)

    with pytest.raises(BadModel, match=reason):
        locate(str(folder))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (".lora_A.weight", ".lora_A.default.weight", "weights that are not of linear layers"),
        ("model.layers.1.", "model.layers.7.", r"changes model\.layers\.7\..*does not have"),
        ("base_model.model.model.", "base_model.model.", r"changes layers\.0\..*does not have"),
        ("up_proj.lora_B", "gate_proj.lora_B", "comes without the weights"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    old: str, new: str, reason: str, folder: Path
) -> None:
    train(folder)
    file = folder / "adapter_model.safetensors"
    save_file({name.replace(old, new): t for name, t in load_file(file).items()}, file)

    with pytest.raises(BadModel, match=reason):
        ours(folder)


def test_an_adapter_with_nan_is_refused_by_the_name_of_the_merged_tensor(folder: Path) -> None:
    train(folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"][0, 0] = float("nan")
    save_file(tensors, file)

    with pytest.raises(BadModel, match=r"layers\.0\.self_attn\.v_proj\.weight holds NaN"):
        ours(folder)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("classifier", [False, True])
def test_the_merge_command_makes_a_model_that_scores_the_same(
    alone: bool, classifier: bool, tmp_path: Path
) -> None:
    base = make_checkpoint(tmp_path / "base", classifier=classifier, **TINY)
    expected = train(base, use_dora=True)
    adapter = base
    if alone:
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        for file in base.glob("adapter_*"):
            file.rename(adapter / file.name)
    with pytest.raises(BadModel) as refusal:
        locate(str(adapter))
    command = str(refusal.value).split("pip install peft && ")[1].split('";')[0] + '"'
    command = command.replace("python -c", f"{sys.executable} -W ignore -c")
    done = subprocess.run(command, shell=True, cwd=tmp_path, check=False)
    (tmp_path / "merged" / "tokenizer.json").write_text("{}")

    assert done.returncode == 0
    assert ours(tmp_path / "merged") == pytest.approx(expected, abs=1e-3)
