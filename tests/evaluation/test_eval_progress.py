"""Progress of `rankd eval` and `rankd calibrate`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rankd.cli.parser import build
from rankd.evaluation.dataset import read_dataset
from rankd.evaluation.options import EvalOptions
from rankd.evaluation.progress import pair_progress
from rankd.telemetry.startup import STEP_LISTENER
from support.terminals import on_terminal


def test_without_a_terminal_a_line_says_how_many_pairs_are_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pair_progress(400, 100, interval=0) as on_scored:
        on_scored(60)
        on_scored(40)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rankd: scoring: 40%, 160 of 400 pairs"
    assert lines[1] == "rankd: scoring: 50%, 200 of 400 pairs"


def test_a_short_run_without_a_terminal_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pair_progress(10) as on_scored:
        on_scored(10)

    assert capsys.readouterr().err == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of one query and two documents, in BEIR's layout."""
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": "d1", "text": "Paris is a capital."}, {"_id": "d2", "text": "Bread."}]
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in documents))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "capital of France"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return tmp_path


def test_reading_and_bm25_are_reported_as_steps(folder: Path) -> None:
    given = ["eval", str(folder), "--bm25"]
    steps: list[str] = []
    token = STEP_LISTENER.set(lambda step: steps.append(step.step))
    try:
        read_dataset(EvalOptions.of(build().parse_args(given)))
    finally:
        STEP_LISTENER.reset(token)

    assert steps == [
        f"reading {folder / 'corpus.jsonl'}",
        "finding candidates for 1 queries with BM25",
    ]


def test_a_terminal_shows_that_an_evaluation_starts_and_its_pairs(folder: Path) -> None:
    out = str(folder / "out")
    shown = on_terminal("eval", str(folder), "--bm25", "--engine", "fake", "--out", out)

    assert shown.status == 0
    assert "starting" in shown.raw
    assert re.search(r"\d+/\d+ .*pair", shown.raw)
    assert "nDCG@10" in shown.text
