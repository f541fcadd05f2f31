"""`rankd rerank`: files of documents, thresholds, presets and aliases."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import termios
from pathlib import Path

import pytest

from support import layouts
from support.client_prompts import BARE, TUTORIAL
from support.layouts import state
from support.servers import command, run

QUERY = "What is the capital of China?"
LINES = [
    "Lions hunt at night.",
    '{"text": "The capital of China is Beijing.", "id": 7}',
    '"Gravity pulls."',
    "",
    '"Quoted," he said, and went on in plain text',
]


def rerank(*arguments: str, stdin: str = "") -> list[dict[str, object]]:
    ended = run("rerank", "--query", QUERY, *arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_documents_of_a_file_are_printed_best_first(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(LINES))

    rows = rerank(str(file))

    assert rows[0]["text"] == "The capital of China is Beijing."
    assert rows[0]["id"] == 7
    assert sorted(int(str(row["index"])) for row in rows) == [0, 1, 2, 3]
    assert float(str(rows[0]["relevance_score"])) > 0.5


def test_a_dash_reads_documents_from_stdin() -> None:
    assert len(rerank("-", "--top-n", "2", stdin="\n".join(LINES))) == 2


def test_a_byte_order_mark_and_windows_lines_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes('\ufeff{"text": "a fox \\ud83d"}\r\na fox\r\na fox\r\n'.encode())

    rows = rerank(str(file), "--engine", "fake")

    assert {str(row["text"]) for row in rows} == {"a fox \ufffd", "a fox"}
    assert [row["index"] for row in rows if row["text"] == "a fox"] == [1, 2]


def test_a_file_that_is_not_utf8_is_an_error_of_one_line() -> None:
    ended = subprocess.run(
        command("rerank", "--query", "q", "-"),
        input=b"\xff\xfe\x00\x80",
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr == b"rankd: - is not UTF-8 text\n"


def test_spans_are_printed_with_the_documents() -> None:
    text = "Lions hunt. The capital of China is Beijing. Bread is baked. China grows rice."

    ended = run("rerank", "--query", QUERY, "-", "--spans", "1", stdin=text)

    [row] = map(json.loads, ended.stdout.splitlines())
    [span] = row["relevant_spans"]
    assert text[span["start"] : span["end"]] == "The capital of China is Beijing."
    assert span["score"] > 0.5


def test_spans_count_the_label_that_was_taken_off() -> None:
    text = "<Document>: Lions hunt. The capital of China is Beijing."
    query = f"<Instruct>: Find it.\n<Query>: {QUERY}"

    ended = run("rerank", "--query", query, "-", "--spans", "1", stdin=text)

    [row] = map(json.loads, ended.stdout.splitlines())
    [span] = row["relevant_spans"]
    assert text[span["start"] : span["end"]] == "The capital of China is Beijing."


def test_the_builtin_model_has_a_calibration() -> None:
    rows = rerank("-", stdin="The capital of China is Beijing.\nLions hunt at night.")

    assert [0 < float(str(row["normalized_score"])) < 1 for row in rows] == [True, True]
    assert "normalized_score" not in rerank("-", "--engine", "fake", stdin="Lions hunt.")[0]
    assert (
        "normalized_score"
        not in rerank("-", "--instruction", "Find lions.", stdin="Lions hunt.")[0]
    )


def test_raw_scores_are_logits() -> None:
    [row] = rerank("-", "--raw-scores", stdin="Lions hunt at night.")

    assert float(str(row["relevance_score"])) < 0


def test_documents_scored_in_several_steps_keep_their_indexes() -> None:
    rows = rerank("-", "--engine", "fake", stdin="\n".join(f"line {n}" for n in range(200)))

    assert sorted(int(str(row["index"])) for row in rows) == list(range(200))
    assert all(row["text"] == f"line {row['index']}" for row in rows)


def test_a_terminal_gets_a_progress_bar() -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with subprocess.Popen(
        command("rerank", "--query", QUERY, "-", "--engine", "fake"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    ) as process:
        process.communicate("one\ntwo\n", timeout=60)
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)

    assert "2/2" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["--query", "q", "-"], '{"text": "unclosed"', "-:1 begins like a JSON object"),
        (["--query", "", "-"], "x", "--query must not be empty"),
        (["--query", "q", "/no/such/file"], "", "cannot read /no/such/file"),
        (["--query", "q", "-"], "\n\n", "standard input holds no documents"),
        (["--query", "q", "-"], '{"image": "https://example.com/a.png"}', "-:1 holds a picture"),
        (["--query", "q", "-", "--top-n", "0"], "x", "--top-n must be at least 1"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], stdin: str, message: str) -> None:
    ended = run("rerank", *arguments, stdin=stdin)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


CONFIG = """
[instructions]
animals = "Given a question, find animals"

[calibration.animals]
threshold = 0.5
platt = { slope = 2.0, intercept = 0.0 }

[aliases.zoo]
preset = "animals"
truncation = "cut"
max_tokens_per_doc = 4
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "rankd.toml"
    file.write_text(CONFIG)
    return str(file)


def numbers(rows: list[dict[str, object]]) -> dict[str, float]:
    return {str(row["text"]): float(str(row["relevance_score"])) for row in rows}


@pytest.mark.slow
def test_a_preset_scores_as_its_instruction_does(config: str) -> None:
    lines = "A fox hunts.\nThe capital of China is Beijing."
    all_documents = ("--score-threshold", "0")

    named = rerank("-", "--config", config, "--preset", "animals", *all_documents, stdin=lines)
    text = "Given a question, find animals"
    by_text = rerank("-", "--instruction", text, stdin=lines)
    plain = rerank("-", "--config", config, stdin=lines)

    assert numbers(named) == numbers(by_text)
    assert numbers(named) != numbers(plain)
    assert all("normalized_score" in row for row in named)
    assert not any("normalized_score" in row for row in by_text)


@pytest.mark.slow
def test_a_calibrated_threshold_drops_documents_and_reports_it(config: str) -> None:
    lines = "A fox hunts.\nThe capital of China is Beijing."
    ended = run(
        "rerank", "--query", QUERY, "-", "--config", config, "--preset", "animals", stdin=lines
    )

    scores = numbers([json.loads(line) for line in ended.stdout.splitlines()])
    assert list(scores) == ["The capital of China is Beijing."]
    assert min(scores.values()) >= 0.5
    assert ended.stderr.startswith("rankd: 1 of 2 documents are below 0.5, the configured ")


@pytest.mark.slow
def test_a_threshold_is_compared_with_the_printed_number() -> None:
    lines = "A fox hunts.\nThe capital of China is Beijing."

    assert len(rerank("-", "--score-threshold", "0.5", stdin=lines)) == 1
    assert len(rerank("-", "--score-threshold", "-99", "--raw-scores", stdin=lines)) == 2


@pytest.mark.slow
def test_an_alias_sets_preset_and_truncation(config: str) -> None:
    line = "Lions and foxes and whales are animals that everyone in China knows."
    arguments = ("-", "--config", config, "--score-threshold", "0")

    [row] = rerank(*arguments, "--alias", "zoo", stdin=line)

    assert row["kept_tokens"] == 4
    assert "kept_tokens" not in rerank(*arguments, "--preset", "animals", stdin=line)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "animal"], "'animal' is neither in [instructions] nor 'default'; did you "),
        (["--alias", "zoos"], "--alias 'zoos' is not in [aliases]; did you mean zoo?"),
        (["--preset", "animals", "--instruction", "x"], "--preset and --instruction both set"),
        (["--score-threshold", "7"], "--score-threshold must be from 0 to 1, not 7"),
    ],
)
def test_an_unknown_preset_or_alias_is_an_error_of_one_line(
    config: str, arguments: list[str], message: str
) -> None:
    ended = run("rerank", "--query", "q", "-", "--config", config, *arguments, stdin="x")

    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_frame_is_taken_off_for_a_model_whose_prompt_has_no_instruction(
    builtin: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(builtin / name)
    state(tmp_path, answers=None, template=layouts.TURNS)
    file = tmp_path / "documents.jsonl"
    printed = []
    for body in (BARE, TUTORIAL):
        file.write_text("\n".join(map(json.dumps, body["documents"])))
        ended = run(
            "rerank", str(file), "--query", body["query"], "--model", str(tmp_path),
            "--engine", "fake",
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        rows = [json.loads(line) for line in ended.stdout.splitlines()]
        printed.append([(row["index"], row["relevance_score"]) for row in rows])

    assert printed[0] == printed[1]
    assert "its instruction ignored, because the prompt of this model has none" in ended.stderr
