"""Which number format the native engine computes in, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankd.config.settings import Settings
from rankd.engines import number_format, open_engine
from rankd.engines.devices import bfloat16_instructions
from rankd.engines.native import arithmetic
from rankd.engines.native.architecture import Architecture
from rankd.models.checkpoint import locate
from rankd.models.rope import read_rope
from rankd.models.tensor_files import StoredTensor
from rankd.types import AnswerTokenIds
from support.checkpoints import NO, YES, make_checkpoint
from support.number_formats import LAYER, stored

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
    monkeypatch.setattr(number_format, "bfloat16_instructions", lambda: "avx512_bf16")
    monkeypatch.setattr(arithmetic, "_speedup", lambda _: speedups[-1])
    return speedups


def chosen(tensors: dict[str, StoredTensor], setting: str = "auto") -> tuple[str, str]:
    found = arithmetic.choose(setting, CPU, tensors, LARGE)
    return found.dtype, found.reason


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.usefixtures("measured")
def test_auto_takes_bfloat16_where_it_is_faster(dtype: str) -> None:
    assert chosen(stored(dtype)) == ("bfloat16", "measured 2.0 times as fast as float32")


def test_auto_takes_float32_where_bfloat16_is_not_faster(measured: list[float]) -> None:
    measured.append(0.9)

    assert chosen(stored("BF16")) == (
        "float32",
        "bfloat16 measured 0.9 times as fast as float32",
    )


def test_auto_takes_float32_without_bfloat16_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_format, "bfloat16_instructions", lambda: None)

    dtype, reason = chosen(stored("BF16"))

    assert dtype == "float32"
    assert "no bfloat16 instructions" in reason


@pytest.mark.usefixtures("measured")
def test_auto_takes_float32_for_weights_that_are_stored_in_it() -> None:
    mixed = stored("BF16") | {LAYER.format(0): replace(stored("F32")[LAYER.format(0)])}

    assert chosen(stored("F32")) == ("float32", "the weights are stored in float32")
    assert chosen(mixed) == ("float32", "the weights are stored in float32")


@pytest.mark.usefixtures("measured")
def test_auto_takes_float32_for_a_small_model() -> None:
    assert chosen(stored("BF16", layers=1)) == ("float32", "small model")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_setting_decides_alone(dtype: str) -> None:
    assert chosen(stored("F32"), setting=dtype) == (dtype, "set by dtype")


def test_the_speedup_of_a_real_product_is_positive() -> None:
    assert arithmetic._speedup(replace(LARGE, hidden_size=64, mlp_size=64)) > 0


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "avx512_bf16"),
        ("flags\t\t: avx512_bf16 amx_bf16 amx_tile\n", "amx_bf16"),
        ("Features\t: fp asimd i8mm bf16\n", "bf16"),
        ("flags\t\t: fpu avx512f avx512_vnni\n", None),
        ("", None),
    ],
)
def test_bfloat16_instructions_are_read_from_the_kernel(
    cpuinfo: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)

    assert bfloat16_instructions(tmp_path / "cpuinfo") == expected
    assert bfloat16_instructions(tmp_path / "missing") is None


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_large_model_in_16_bits_runs_in_what_was_chosen_and_says_why(
    tmp_path: Path,
) -> None:
    folder = make_checkpoint(
        tmp_path / "model",
        hidden=1024,
        layers=5,
        heads=16,
        kv_heads=8,
        mlp=4096,
        dtype="bfloat16",
        vocab_size=10_000,
        tokenizer=False,
    )
    settings = Settings(device="cpu", threads=1)

    async with open_engine(locate(str(folder)), AnswerTokenIds(YES, NO), settings) as engine:
        info = engine.info

    # On a busy machine the measurement may find either.
    why = "measured" if bfloat16_instructions() else "no bfloat16 instructions"
    assert why in info.dtype_reason
    assert info.summary == f"native on cpu, {info.dtype} ({info.dtype_reason})"
    assert re.search(rf", {info.dtype} products( by \w+)?, 1 thread$", info.arithmetic)
