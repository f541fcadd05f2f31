"""bench/gpu.py on a CPU, with a tiny model. Its figures are not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rankd.engines.native import packed_attention

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["bench/gpu.py", "--device", "cpu", "--small", "--out"]

WITH_TORCH_ALONE = """
import runpy, sys
for name in ("pydantic", "orjson", "safetensors", "numpy", "transformers", "sentence_transformers"):
    sys.modules[name] = None
sys.argv = {arguments!r}
runpy.run_path("bench/gpu.py", run_name="__main__")
"""


def _run(program: list[str], file: Path) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, *program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'bench'}"},
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    results: dict[str, Any] = json.loads(file.read_text())["small"]
    return results


def test_it_runs_with_torch_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    arguments = [*ARGUMENTS, str(file)]

    results = _run(["-W", "ignore", "-c", WITH_TORCH_ALONE.format(arguments=arguments)], file)

    assert results["parity"]["in float32"]["max"] < 1e-3
    assert results["parity"]["in one batch"]["max_of_spread"] < 0.05
    assert results["matrix speed"]["best_tflops"] > 0
    assert results["20 tokens, batches of 512"]["documents_per_s"] > 0
    assert len(results["time by kernel"]["slowest"]) == 14
    assert results["transformers"].startswith("not installed")
    assert results["sentence-transformers"].startswith("not installed")


def test_it_compares_with_installed_libraries(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    results = _run([*ARGUMENTS, str(file)], file)

    assert results["transformers"]["parity"]["max_of_spread"] < 0.05
    assert results["transformers"]["model card, 20 tokens"] > 0
    assert results["sentence-transformers"]["20 tokens"] > 0


def _one_call(
    query: Tensor, key: Tensor, value: Tensor, query_ends: Tensor, key_ends: Tensor, *_: int,
    window_size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """As torch's variable-length attention, by plain attention of each sequence."""
    spans = zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True)
    outputs = [
        packed_attention._plain_attention(
            query[slice(*one)], key[slice(*other)], value[slice(*other)]
        )
        for one, other in spans
    ]
    assert window_size == (-1, 0) or query_ends.diff().max() == 1
    return torch.cat(outputs).to(query.dtype)


def test_with_attention_in_one_call_it_also_measures_one_for_each_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a CUDA device, but for the call itself."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu

    file = tmp_path / "results.json"
    monkeypatch.setattr(gpu, "find_varlen_attention", lambda *_: _one_call)
    monkeypatch.setattr(gpu, "_measure_peers", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [*ARGUMENTS, str(file)])

    assert gpu.main() == 0

    results = json.loads(file.read_text())["small"]
    assert results["attention in one call"] is True
    assert results["20 tokens, batches of 512, one call for each length"]["documents_per_s"] > 0


def test_wrong_logits_end_it_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu

    def results(error: float) -> dict[str, Any]:
        return {"small": {"parity": {"in one batch": {"max_of_spread": error}}}, "seconds": 1.0}

    assert gpu._status(results(0.04)) == 0
    assert gpu._status(results(0.06)) == 1
    assert gpu._status(results(float("nan"))) == 1
    assert gpu._status({"seconds": 1.0}) == 1
