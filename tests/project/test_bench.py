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


def test_the_fleet_simulation_scores_every_request_with_every_router() -> None:
    ended = subprocess.run(
        [sys.executable, "bench/fleet.py", "--replicas", "4", "--seconds", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    names, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines()
    ]
    runs = [dict(zip(names, row, strict=True)) for row in rows]
    assert len({run["router"] for run in runs}) == 4
    assert {run["lost"] for run in runs} == {"0"}
    assert all(float(run["fullest/mean"]) < 2 for run in runs)
