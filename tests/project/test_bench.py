"""The benchmarks run. Their figures are not tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rankd.dialects import DIALECTS
from support.checkpoints import make_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run_bench(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


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
    ended = run_bench(
        *("bench/products.py", "--model", "builtin", "--rounds", "1"),
        *("--threads", "1", "--dtype", dtype, "--shapes", "3x40", "1x300"),
    )

    assert ended.returncode == 0, ended.stderr
    rows = [line for line in ended.stdout.splitlines() if " x " in line]
    assert [row.split("|")[1].strip() for row in rows] == ["3 x 40", "1 x 300"]


def test_the_evaluation_benchmark_makes_data_sets_and_figures() -> None:
    ended = run_bench("bench/evaluation.py", "--queries", "3", "--depth", "3")

    assert ended.returncode == 0, ended.stderr
    assert "docstrings (test): 3 queries" in ended.stdout
    assert "triples (test): 70 queries" in ended.stdout
    assert "210 judged pairs" in ended.stdout


def test_the_spans_benchmark_finds_answers_in_both_languages() -> None:
    ended = run_bench("bench/spans.py", "--documents", "4", "--rounds", "1")

    assert ended.returncode == 0, ended.stderr
    shares = re.findall(r"^\| (\w+) \| (\d) of (\d) \| (\d) of \d \|$", ended.stdout, re.M)
    assert [(name, total) for name, _, total, _ in shares] == [
        ("en", "2"),
        ("zh", "2"),
        ("all", "4"),
    ]
    assert int(shares[2][3]) >= 2
    assert "with spans" in ended.stdout


def test_the_peers_are_measured_in_turn_and_one_that_does_not_run_is_named(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", dtype="bfloat16")
    options = ["--model", str(model), "--documents", "2", "--words", "9", "--rounds", "1"]
    ended = run_bench("bench/peers.py", *options, "--peers", "tutorial", "openvino", "native")

    assert ended.returncode == 0, ended.stderr
    rows = [line.split("|") for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[1:]] == [
        "transformers, as in tutorials, float32",
        "**rankd, native engine**",
    ]
    assert float(rows[-1][-2]) < 1e-4
    assert "OpenVINO GenAI, its default type does not run here: needs" in ended.stdout


def test_the_fleet_simulation_scores_every_request_with_every_router() -> None:
    ended = run_bench("bench/fleet.py", "--replicas", "4", "--seconds", "1")

    assert ended.returncode == 0, ended.stderr
    names, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines()
    ]
    runs = [dict(zip(names, row, strict=True)) for row in rows]
    assert len({run["router"] for run in runs}) == 4
    assert {run["lost"] for run in runs} == {"0"}
    assert all(float(run["fullest/mean"]) < 2 for run in runs)
