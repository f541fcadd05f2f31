"""The benchmarks run. Their figures are not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rankd.dialects import DIALECTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_dialect_benchmark_measures_every_dialect() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import dialects; dialects.layers(2, count=3)"],
        capture_output=True,
        text=True,
        cwd=ROOT / "bench",
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    rows = [line for line in ended.stdout.splitlines() if line.startswith("| `/")]
    assert len(rows) == len(DIALECTS) + 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_benchmark_of_products_has_a_row_for_each_shape(dtype: str) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "bench/products.py", "--model", "builtin", "--rounds", "1"),
            *("--threads", "1", "--dtype", dtype, "--shapes", "3x40", "1x300"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    rows = [line for line in ended.stdout.splitlines() if " x " in line]
    assert [row.split("|")[1].strip() for row in rows] == ["3 x 40", "1 x 300"]


def test_the_evaluation_benchmark_makes_data_sets_and_figures() -> None:
    ended = subprocess.run(
        [sys.executable, "bench/evaluation.py", "--queries", "3", "--depth", "3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "docstrings (test): 3 queries" in ended.stdout
    assert "triples (test): 70 queries" in ended.stdout
    assert "210 judged pairs" in ended.stdout
