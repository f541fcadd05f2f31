"""Which number format the native engine computes in, and how close bfloat16 is to float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankd.engines.native import arithmetic
from rankd.engines.native.architecture import Architecture
from rankd.engines.native.weights import stored_dtype
from rankd.models.checkpoint import locate
from rankd.models.rope import read_rope
from support.checkpoints import make_checkpoint

CPU = torch.device("cpu")

# The shape of Qwen3-Reranker-0.6B.
LARGE = Architecture(
    vocab_size=151_669,
    hidden_size=1024,
    layers=28,
    heads=16,
    kv_heads=8,
    head_dim=128,
    mlp_size=3072,
    norm_eps=1e-6,
    rope=read_rope({"rope_theta": 1e6, "max_position_embeddings": 40_960}),
    tied=True,
    classifier=False,
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Speedups that the measurement returns; the processor has the instructions."""
    speedups = [2.0]
    monkeypatch.setattr(arithmetic, "has_bfloat16_instructions", lambda: True)
    monkeypatch.setattr(arithmetic, "_speedup", lambda _: speedups[-1])
    return speedups


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("measured")
def test_auto_takes_bfloat16_where_it_is_faster(stored: torch.dtype) -> None:
    chosen = arithmetic.choose("auto", CPU, stored, LARGE)

    assert chosen.dtype is torch.bfloat16
    assert chosen.reason == "measured 2.0 times as fast as float32"


def test_auto_takes_float32_where_bfloat16_is_not_faster(measured: list[float]) -> None:
    measured.append(0.9)

    chosen = arithmetic.choose("auto", CPU, torch.bfloat16, LARGE)

    assert chosen.dtype is torch.float32
    assert chosen.reason == "bfloat16 measured 0.9 times as fast as float32"


def test_auto_takes_float32_without_bfloat16_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "has_bfloat16_instructions", lambda: False)

    chosen = arithmetic.choose("auto", CPU, torch.bfloat16, LARGE)

    assert chosen.dtype is torch.float32
    assert "no bfloat16 instructions" in chosen.reason


@pytest.mark.usefixtures("measured")
def test_auto_takes_float32_for_weights_that_are_stored_in_it() -> None:
    assert arithmetic.choose("auto", CPU, torch.float32, LARGE).dtype is torch.float32


@pytest.mark.usefixtures("measured")
def test_auto_takes_float32_for_a_small_model() -> None:
    small = replace(LARGE, hidden_size=128, layers=4, mlp_size=384, heads=4, kv_heads=2)

    assert arithmetic.choose("auto", CPU, torch.bfloat16, small).dtype is torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_setting_decides_alone(dtype: str) -> None:
    assert arithmetic.choose(dtype, CPU, torch.float32, LARGE).dtype is getattr(torch, dtype)


def test_the_speedup_of_a_real_product_is_positive() -> None:
    assert arithmetic._speedup(replace(LARGE, hidden_size=64, mlp_size=64)) > 0


def test_parameters_are_those_of_the_layers() -> None:
    assert arithmetic.parameters(LARGE) == 440_401_920


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_stored_dtype_is_read_from_the_file(dtype: str, tmp_path: Path) -> None:
    checkpoint = locate(str(make_checkpoint(tmp_path / "model", dtype=dtype)))

    assert stored_dtype(checkpoint.weights) is getattr(torch, dtype)
