"""What a folder holds instead of a checkpoint is named, with what to do next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankd.engines.native.architecture import refuse_quantized
from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from support.checkpoints import make_checkpoint

TINY: dict[str, Any] = {"vocab_size": 10_000, "hidden": 8, "layers": 1, "tokenizer": False}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "Qwen/Qwen3-Reranker-4B",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", **TINY)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "classifier", classifier=True, **TINY)


def refusal(folder: Path) -> str:
    with pytest.raises(BadModel) as problem:
        locate(str(folder))
    return str(problem.value)


def change_config(folder: Path, fields: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_weights(folder: Path, **changes: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | changes, file)


def rename_tensors(folder: Path, old: str, new: str) -> None:
    file = folder / "model.safetensors"
    save_file({name.replace(old, new): t for name, t in load_file(file).items()}, file)


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_alone_names_its_base_and_pefts_command(with_config: bool, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    if not with_config:
        (folder / "config.json").unlink()

    assert refusal(folder) == (
        f"{folder} is a LoRA adapter of Qwen/Qwen3-Reranker-4B, without the weights of that model. "
        'Merge it: pip install peft && python -c "from peft import AutoPeftModelForCausalLM as M; '
        f"M.from_pretrained('{folder}').merge_and_unload().save_pretrained('merged')\"; then copy "
        "the base model's tokenizer.json into the folder merged, and serve that"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named_with_the_command(name: str, folder: Path) -> None:
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )

    assert refusal(folder) == (
        f"{folder / name} is a Git LFS pointer, not the file itself; run: git lfs install && "
        f"git -C {folder} lfs pull"
    )


@pytest.mark.parametrize("content", [b"", b"\x08", bytes(100), b"\xff" * 100, b"PK\x03\x04" * 9])
def test_a_file_that_is_not_in_safetensors_format_is_named(content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)

    assert "the file is damaged or incomplete, download it again" in refusal(folder)


def test_a_truncated_file_is_refused_before_the_engine_starts(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    assert "download it again" in refusal(folder)


def test_a_path_of_a_gguf_file_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    file = tmp_path / "qwen3-reranker-q8_0.gguf"
    file.write_bytes(b"GGUF")

    assert f"{file} is a GGUF file, which rankd does not read; take the original" in refusal(file)


@pytest.mark.parametrize("with_config", [False, True])
def test_a_folder_of_gguf_files_is_named(with_config: bool, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.gguf")
    if not with_config:
        (folder / "config.json").unlink()

    assert "holds GGUF files, which rankd does not read; take the original" in refusal(folder)


def test_a_gguf_model_of_the_hub_is_named(tmp_path: Path) -> None:
    """Its files are not downloaded, so the folder is empty but for the configuration."""
    snapshot = tmp_path / "models--Qwen--Qwen3-Reranker-0.6B-GGUF" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)

    assert "holds GGUF files" in refusal(snapshot)


def test_a_path_of_another_file_names_its_folder(folder: Path) -> None:
    file = folder / "model.safetensors"

    assert refusal(file) == f"{file} is a file; MODEL is the folder that holds it, such as {folder}"


def test_mlx_quantization_is_refused_with_the_original(folder: Path) -> None:
    stated = {"group_size": 64, "bits": 4}
    change_config(folder, {"quantization": stated, "quantization_config": stated})

    assert "has MLX's quantization" in refusal(folder)
    assert "take the original model that it was made from" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.norm.weight", torch.ones(8).to(torch.float8_e4m3fn)),
        ("model.norm.weight", torch.ones(8, dtype=torch.int8)),
        ("model.norm.weight", torch.ones(8, dtype=torch.float64)),
        ("model.layers.0.mlp.up_proj.weight_scale", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.scales", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.biases", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.qweight", torch.ones(1, dtype=torch.int32)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.dtype),
)
def test_the_native_engine_refuses_quantized_tensors_by_name(
    name: str, tensor: torch.Tensor, folder: Path
) -> None:
    change_weights(folder, **{name: tensor})
    checkpoint = locate(str(folder))

    with pytest.raises(BadModel, match=rf"has .* \({name}\); .*Take the original model"):
        refuse_quantized(checkpoint)


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "bitsandbytes"])
def test_the_native_engine_refuses_a_stated_quantization(method: str, folder: Path) -> None:
    change_config(folder, {"quantization_config": {"quant_method": method}})
    checkpoint = locate(str(folder))

    with pytest.raises(BadModel, match=rf"quantized weights \({method}\).*--engine vllm"):
        refuse_quantized(checkpoint)


def test_an_embedding_model_is_recognised_by_its_names(folder: Path) -> None:
    rename_tensors(folder, "model.", "")

    assert "is an embedding model or a bare Qwen3Model, without a head" in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.", "base_model.model.model."),
        ("score.weight", "score.modules_to_save.default.weight"),
        ("q_proj.weight", "q_proj.base_layer.weight"),
    ],
)
def test_unmerged_names_of_peft_are_recognised(old: str, new: str, classifier: Path) -> None:
    rename_tensors(classifier, old, new)

    assert "holds a model with an unmerged PEFT adapter" in refusal(classifier)
    assert "merge_and_unload(), then save_pretrained()" in refusal(classifier)


@pytest.mark.slow
def test_pytorch_weights_come_with_a_command_that_converts_them(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    sentence = refusal(folder)
    run_command(sentence)

    assert "has its weights in pytorch_model.bin, which rankd does not read; convert" in sentence
    assert locate(str(folder)).tensors["model.norm.weight"].shape == (8,)


@pytest.mark.slow
def test_a_slow_tokenizer_comes_with_a_command_that_converts_it(
    folder: Path, tmp_path: Path
) -> None:
    real = make_checkpoint(tmp_path / "real", **TINY | {"tokenizer": True})
    spec = json.loads((real / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(spec["vocab"]))
    merges = "\n".join(map(" ".join, spec["merges"]))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    sentence = refusal(folder)
    run_command(sentence)

    assert f"{folder} lacks tokenizer.json; make it from vocab.json and merges.txt" in sentence
    made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert made["vocab"] == spec["vocab"]


def run_command(sentence: str) -> None:
    """Run the Python code of a sentence: everything between `python -c "` and the next quote."""
    code = sentence.split('python -c "')[1].split('"')[0]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def test_a_folder_without_a_tokenizer_says_where_to_take_it(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()

    assert "lacks tokenizer.json; copy it from the model that this one was made" in refusal(folder)


def test_a_configuration_without_architectures_says_what_to_write(folder: Path) -> None:
    change_config(folder, {"architectures": None})

    assert (
        'names no architecture; if this is a Qwen3-Reranker, write "architectures": ['
        in refusal(folder)
    )


@pytest.mark.parametrize(
    ("rows", "config", "sentence"),
    [
        (
            2,
            {"id2label": {"0": "LABEL_0"}},
            'score.weight is [2, 8], and config.json has 1 label; write "id2label": {"0": "no"',
        ),
        (
            2,
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
            "does not say which one means relevant; write",
        ),
        (
            1,
            {"id2label": {"0": "no", "1": "yes"}},
            "is [1, 8], and config.json has 2 labels; a con",
        ),
        (3, {"id2label": {"0": "a", "1": "b", "2": "c"}}, "config.json has 3 labels; a converted"),
        (1, {"id2label": 7}, "id2label or num_labels is malformed"),
    ],
)
def test_a_head_with_other_rows_than_labels_is_refused(
    rows: int, config: dict[str, Any], sentence: str, classifier: Path
) -> None:
    change_weights(classifier, **{"score.weight": torch.ones(rows, 8)})
    change_config(classifier, config)

    assert sentence in refusal(classifier)


def test_a_bias_of_the_score_is_refused(classifier: Path) -> None:
    change_weights(classifier, **{"score.bias": torch.ones(1)})

    assert "the weights have a score.bias" in refusal(classifier)


@pytest.mark.parametrize(
    ("cache", "name"),
    [
        ("models--me--reranker-v2", "me/reranker-v2"),
        ("models--gpt2", "0123abcd"),
        ("me--reranker", "0123abcd"),
    ],
)
def test_a_snapshot_in_the_hubs_cache_has_the_hubs_name(
    cache: str, name: str, folder: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / cache / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)

    assert locate(str(snapshot)).name == name
