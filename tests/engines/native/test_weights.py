"""Reading weights: files that differ from config.json are refused with one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.weights import Weights, load
from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds
from support.checkpoints import NO, YES, make_checkpoint
from support.servers import run

ANSWERS = AnswerTokenIds(YES, NO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", hidden=8, head_dim=4, mlp=8, tokenizer=False)


def _load(
    folder: Path,
    answers: AnswerTokenIds = ANSWERS,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Weights:
    checkpoint = locate(str(folder))
    architecture = read_architecture(checkpoint.config | config)
    return load(checkpoint.weights, architecture, answers, torch.device("cpu"), dtype)


def _rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of the file, or remove them (None); `__` in a name stands for a dot."""
    file = folder / "model.safetensors"
    tensors = load_file(file) | {name.replace("__", "."): new for name, new in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    _rewrite(folder, model__layers__1__mlp__up_proj__weight=None)

    with pytest.raises(BadModel, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        _load(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    _rewrite(folder, model__norm__weight=torch.ones(9))

    with pytest.raises(BadModel, match=r"model\.norm\.weight is \[9\]; config\.json says \[8\]"):
        _load(folder)


def test_a_quantised_tensor_is_refused(folder: Path) -> None:
    _rewrite(folder, model__norm__weight=torch.ones(8, dtype=torch.int8))

    with pytest.raises(BadModel, match=r"holds torch\.int8"):
        _load(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])

    with pytest.raises(BadModel, match=r"cannot read .*model\.safetensors"):
        _load(folder)


def test_an_answer_token_outside_the_vocabulary_is_refused(folder: Path) -> None:
    with pytest.raises(BadModel, match="token 151669 is outside the model's vocabulary of 151669"):
        _load(folder, AnswerTokenIds(151_669, NO))


def test_an_untied_model_without_an_lm_head_is_refused(folder: Path) -> None:
    with pytest.raises(BadModel, match=r"lack lm_head\.weight"):
        _load(folder, tie_word_embeddings=False)


def test_a_tied_model_uses_an_lm_head_in_its_file(folder: Path) -> None:
    """As transformers 5 does; test_transformers_5.py compares the scores."""
    _rewrite(folder, lm_head__weight=torch.zeros(151_669, 8))

    assert _load(folder).answer_rows.eq(0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"],
)
def test_weights_that_are_not_finite_are_named(folder: Path, name: str, value: float) -> None:
    tensor = load_file(folder / "model.safetensors")[name]
    tensor.view(-1)[-1] = value
    _rewrite(folder, **{name: tensor})

    with pytest.raises(BadModel, match=f"{name} holds NaN or infinite values".replace(".", r"\.")):
        _load(folder)


def test_a_server_does_not_start_with_nan_even_without_a_self_check(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "served", hidden=8, head_dim=4, mlp=8)
    tensor = load_file(folder / "model.safetensors")["model.norm.weight"]
    _rewrite(folder, model__norm__weight=tensor * float("nan"))

    ended = run("serve", str(folder), "--port", "0", "--self-check", "off")

    assert ended.returncode == 3
    assert "model.norm.weight holds NaN or infinite values" in ended.stderr.splitlines()[-1]


def test_weights_beyond_float16_are_named_when_float16_is_asked_for(folder: Path) -> None:
    large = torch.full((8, 8), 1e5)
    _rewrite(folder, model__layers__0__mlp__down_proj__weight=large)
    _load(folder)

    with pytest.raises(BadModel, match=r"down_proj\.weight holds 100000, which float16 cannot"):
        _load(folder, dtype=torch.float16)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "v_head.weight"],
)
def test_tensors_without_a_place_in_the_model_are_refused(folder: Path, name: str) -> None:
    _rewrite(folder, **{name: torch.ones(8)})

    with pytest.raises(BadModel, match=rf"the weights hold {name}, for which"):
        _load(folder)


def test_old_files_may_hold_the_frequencies_of_the_rotary_embedding(folder: Path) -> None:
    _rewrite(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)})

    _load(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_floating_types_of_other_widths_are_refused(folder: Path, dtype: torch.dtype) -> None:
    _rewrite(folder, model__norm__weight=torch.ones(8).to(dtype))

    with pytest.raises(BadModel, match=rf"model\.norm\.weight holds {dtype}, .*original model"):
        _load(folder)


def test_without_tie_word_embeddings_an_lm_head_in_the_file_is_used(folder: Path) -> None:
    before = _load(folder, tie_word_embeddings=None).answer_rows
    _rewrite(folder, lm_head__weight=torch.zeros(151_669, 8))

    assert _load(folder, tie_word_embeddings=None).answer_rows.eq(0).all()
    assert not before.eq(0).all()
