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

ANSWERS = AnswerTokenIds(YES, NO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", hidden=8, head_dim=4, mlp=8, tokenizer=False)


def _load(folder: Path, answers: AnswerTokenIds = ANSWERS, **config: Any) -> Weights:
    checkpoint = locate(str(folder))
    architecture = read_architecture(checkpoint.config | config)
    return load(checkpoint.weights, architecture, answers, torch.device("cpu"), torch.float32)


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


def test_a_tied_model_ignores_an_lm_head_in_its_file(folder: Path) -> None:
    before = _load(folder).answer_rows
    _rewrite(folder, lm_head__weight=torch.zeros(151_669, 8))

    assert _load(folder).answer_rows.equal(before)


def test_without_tie_word_embeddings_an_lm_head_in_the_file_is_used(folder: Path) -> None:
    before = _load(folder, tie_word_embeddings=None).answer_rows
    _rewrite(folder, lm_head__weight=torch.zeros(151_669, 8))

    assert _load(folder, tie_word_embeddings=None).answer_rows.eq(0).all()
    assert not before.eq(0).all()
