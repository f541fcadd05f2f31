"""`rankd score` that is stopped at any moment: every row once, and nothing is scored twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rankd.errors import BadSettings
from rankd.offline import outputs
from rankd.offline.outputs import RECORDS, locked
from support.offline import pairs, read_rows, score_files, write_rows
from support.servers import command

FILES = 6
ROWS = 4000


def make_inputs(folder: Path, rows: int = ROWS) -> list[str]:
    """Some files; returns their names."""
    names = [f"part-{number}.jsonl" for number in range(FILES)]
    for number, name in enumerate(names):
        write_rows(folder / name, pairs(rows, first=number * rows))
    return names


def kill_when(condition: Callable[[], bool], *arguments: str, kind: int = signal.SIGKILL) -> int:
    """Start `rankd score`, signal it when the condition holds; returns its exit status."""
    process = subprocess.Popen(
        command("score", *arguments, "--engine", "fake"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(kind)
    process.communicate(timeout=60)
    return process.returncode


def finished(out: Path) -> int:
    return len(list(out.glob("*.jsonl")))


def have_finished(out: Path, enough: int) -> Callable[[], bool]:
    return lambda: finished(out) >= enough


@pytest.mark.slow
def test_a_command_that_is_killed_twice_scores_each_row_once(tmp_path: Path) -> None:
    names = make_inputs(tmp_path / "in")
    out = tmp_path / "out"
    arguments = (str(tmp_path / "in"), "--out", str(out))

    for enough in (1, 3):
        assert kill_when(have_finished(out, enough), *arguments) == -signal.SIGKILL
        assert enough <= finished(out) < FILES
    kept = {path.name: path.stat().st_ino for path in out.glob("*.jsonl")}
    assert kept
    score_files(*arguments)

    ids = [row["id"] for name in names for row in read_rows(out / name)]
    assert ids == list(range(FILES * ROWS))
    assert {name: (out / name).stat().st_ino for name in kept} == kept
    assert {path.name for path in (out / RECORDS).iterdir()} == {
        "lock",
        *(f"{name}.json" for name in names),
    }


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_keeps_what_is_done(tmp_path: Path) -> None:
    make_inputs(tmp_path / "in")
    out = tmp_path / "out"

    ended = kill_when(
        lambda: finished(out) >= 1,
        *(str(tmp_path / "in"), "--out", str(out)),
        kind=signal.SIGINT,
    )

    assert ended == 130
    assert 1 <= finished(out) < FILES
    assert not list((out / RECORDS).glob("*.part"))


@pytest.mark.parametrize("step", ["_sync", "_sync_folder"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_death_between_two_steps_of_publishing_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, count: int
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(30))
    real = getattr(outputs, step)
    calls = []

    def dies(argument: object) -> None:
        calls.append(argument)
        if len(calls) == count:
            raise KeyboardInterrupt
        real(argument)

    with monkeypatch.context() as patch:
        patch.setattr(outputs, step, dies)
        with pytest.raises(KeyboardInterrupt):
            score_files(file, "--out", tmp_path / "out")
    score_files(file, "--out", tmp_path / "out")

    assert [row["id"] for row in read_rows(tmp_path / "out/rows.jsonl")] == list(range(30))


def test_done_files_are_not_scored_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_inputs(tmp_path / "in", rows=20)
    score_files(tmp_path / "in", "--out", tmp_path / "out")
    (tmp_path / "out/part-2.jsonl").unlink()
    os.truncate(tmp_path / "out/part-4.jsonl", 10)
    # Copied elsewhere and back: the same contents with another time.
    os.utime(tmp_path / "in/part-0.jsonl")
    capsys.readouterr()

    score_files(tmp_path / "in", "--out", tmp_path / "out")

    assert capsys.readouterr().out.startswith("scored 40 rows ")
    ids = [row["id"] for n in range(FILES) for row in read_rows(tmp_path / f"out/part-{n}.jsonl")]
    assert ids == list(range(20 * FILES))


def changed_model(file: Path) -> list[str]:
    return ["--truncation", "chunk"]


def changed_column(file: Path) -> list[str]:
    return ["--score-column", "other"]


def changed_input(file: Path) -> list[str]:
    write_rows(file, [*pairs(19), {"id": 99, "query": "q", "document": "other"}])
    return []


def unknown_output(file: Path) -> list[str]:
    (file.parent / "out" / RECORDS / f"{file.name}.json").unlink()
    return []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed_model, "was made with another truncation: 'cut', not 'chunk'"),
        (changed_column, "was made with another score column"),
        (changed_input, "was made from other contents of"),
        (unknown_output, "was not written by rankd score"),
    ],
)
def test_an_output_of_something_else_is_replaced_only_if_wanted(
    tmp_path: Path, change: Callable[[Path], list[str]], message: str
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(20))
    out = ("--out", tmp_path / "out")
    score_files(file, *out)
    before = (tmp_path / "out/rows.jsonl").read_bytes()
    flags = change(file)

    with pytest.raises(BadSettings, match=message) as refused:
        score_files(file, *out, *flags)
    assert (tmp_path / "out/rows.jsonl").read_bytes() == before
    score_files(file, *out, *flags, "--overwrite")

    assert "choose another --out, or replace it with --overwrite" in str(refused.value)
    assert len(read_rows(tmp_path / "out/rows.jsonl")) == 20


def test_an_input_that_changes_meanwhile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(20))
    real = outputs._sync

    def changes(stream: object) -> None:
        write_rows(file, pairs(21))
        real(stream)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "_sync", changes)
    with pytest.raises(BadSettings, match="has changed while it was scored"):
        score_files(file, "--out", tmp_path / "out")

    assert not (tmp_path / "out/rows.jsonl").exists()


def test_a_second_command_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(2))

    with (
        locked((tmp_path / "out").resolve()),
        pytest.raises(BadSettings, match="another rankd score is writing to"),
    ):
        score_files(file, "--out", tmp_path / "out")


def test_few_batches_of_a_large_file_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankd.offline import file_scorer, jsonl_rows

    read, written, most = 0, 0, 0
    real = jsonl_rows.JsonlRows._row
    real_write = jsonl_rows.JsonlWriter.write

    def counted(self: jsonl_rows.JsonlRows, location: str, line: bytes) -> object:
        nonlocal read, most
        read += 1
        most = max(most, read - written)
        return real(self, location, line)

    def write(self: jsonl_rows.JsonlWriter, batch: object, results: object) -> None:
        nonlocal written
        real_write(self, batch, results)  # type: ignore[arg-type]
        written += len(results)  # type: ignore[arg-type]

    monkeypatch.setattr(jsonl_rows, "BATCH_ROWS", 10)
    monkeypatch.setattr(jsonl_rows.JsonlRows, "_row", counted)
    monkeypatch.setattr(jsonl_rows.JsonlWriter, "write", write)
    file = write_rows(tmp_path / "rows.jsonl", pairs(1000))
    score_files(file, "--out", tmp_path / "out")

    assert written == 1000
    # The first batch is read once more, before the model is loaded.
    assert most <= 10 * (file_scorer._BATCHES + 2)


def test_records_name_what_made_the_output(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(20))
    score_files(file, "--out", tmp_path / "out")

    record = json.loads((tmp_path / "out" / RECORDS / "rows.jsonl.json").read_text())

    assert record["about"]["model"] == "builtin"
    assert record["counts"]["rows"] == 20
    assert record["bytes"] == (tmp_path / "out/rows.jsonl").stat().st_size
