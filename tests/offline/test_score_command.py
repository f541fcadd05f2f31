"""`rankd score`: rows in, the same rows with scores out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.errors import BadSettings
from rankd.offline import jsonl_rows
from support.client_prompts import BARE, TUTORIAL
from support.offline import pairs, read_rows, score_files, write_rows
from support.servers import Server, run, serving

QUERY = "What is the capital of China?"
DOCUMENTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Gravity pulls."]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the built-in model."""
    with serving("--self-check", "off") as server:
        yield server


def online(server: Server, **body: Any) -> list[float]:
    """The scores that a server gives, in the order of the documents."""
    answer = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    results = sorted(answer.json()["results"], key=lambda result: int(result["index"]))
    return [float(result["relevance_score"]) for result in results]


def test_rows_keep_their_order_and_fields_and_get_a_score(tmp_path: Path) -> None:
    rows = pairs(1300)
    file = write_rows(tmp_path / "rows.jsonl", rows)

    score_files(file, "--out", tmp_path / "out")

    scored = read_rows(tmp_path / "out/rows.jsonl")
    assert [{**row, "relevance_score": None} for row in rows] == [
        {**row, "relevance_score": None} for row in scored
    ]
    assert len({row["relevance_score"] for row in scored}) > 3


def test_scores_are_those_of_a_server(tmp_path: Path, server: Server) -> None:
    rows = [{"query": QUERY, "document": text} for text in DOCUMENTS]
    listed = [{"query": QUERY, "documents": DOCUMENTS}]
    write_rows(tmp_path / "in/pairs.jsonl", rows)
    write_rows(tmp_path / "in/lists.jsonl", listed)

    score_files(tmp_path / "in", "--out", tmp_path / "out", "--engine", "native")

    expected = online(server, query=QUERY, documents=DOCUMENTS)
    of_pairs = [row["relevance_score"] for row in read_rows(tmp_path / "out/pairs.jsonl")]
    [of_list] = read_rows(tmp_path / "out/lists.jsonl")
    assert of_pairs == pytest.approx(expected, abs=1e-6)
    assert of_list["relevance_score"] == pytest.approx(expected, abs=1e-6)
    assert of_list["documents"] == DOCUMENTS


def test_a_row_s_own_instruction_is_used(tmp_path: Path, server: Server) -> None:
    texts = ["Find animals", "Find places"]
    rows = [{"query": QUERY, "document": DOCUMENTS[0], "task": text} for text in texts]
    file = write_rows(tmp_path / "rows.jsonl", [*rows, {**rows[0], "task": None}])

    flags = ("--engine", "native", "--instruction-column", "task")
    score_files(file, "--out", tmp_path / "out", *flags)

    scored = [row["relevance_score"] for row in read_rows(tmp_path / "out/rows.jsonl")]
    expected = [
        online(server, query=QUERY, documents=DOCUMENTS[:1], instruction=text)[0] for text in texts
    ]
    own = online(server, query=QUERY, documents=DOCUMENTS[:1])
    assert scored == pytest.approx([*expected, *own], abs=1e-6)
    assert len(set(scored)) == 3


def test_a_prompt_in_the_rows_is_taken_off_as_online(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    framed = write_rows(tmp_path / "framed.jsonl", [TUTORIAL])
    bare = write_rows(tmp_path / "bare.jsonl", [BARE])

    score_files(framed, bare, "--out", tmp_path / "out")

    scores = [read_rows(tmp_path / "out" / file.name)[0] for file in (framed, bare)]
    assert scores[0]["relevance_score"] == scores[1]["relevance_score"]
    assert "of 1 row Qwen3-Reranker's prompt was taken off" in capsys.readouterr().err


CONFIG = """
[instructions]
animals = "Given a question, find animals"

[calibration.animals]
threshold = 0.9
platt = { slope = 2.0, intercept = 0.0 }

[aliases.zoo]
preset = "animals"
truncation = "cut"
max_tokens_per_doc = 2
"""


def test_presets_and_aliases_work_as_in_a_server_and_keep_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "rankd.toml"
    config.write_text(CONFIG)
    file = write_rows(tmp_path / "rows.jsonl", pairs(3))

    score_files(file, "--out", tmp_path / "preset", "--config", config, "--preset", "animals")
    score_files(file, "--out", tmp_path / "alias", "--config", config, "--alias", "zoo")

    by_preset = read_rows(tmp_path / "preset/rows.jsonl")
    by_alias = read_rows(tmp_path / "alias/rows.jsonl")
    assert [row["id"] for row in by_preset] == [0, 1, 2]
    assert all(0 < row["relevance_score_normalized"] < 1 for row in by_preset)
    assert not any("relevance_score_truncated" in row for row in by_preset)
    assert all(row["relevance_score_truncated"] is True for row in by_alias)
    assert "3 documents were cut" in capsys.readouterr().err


def test_raw_scores_are_logits_in_a_column_of_any_name(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"q": "fox", "passage": "zebra " * 9}])
    columns = ("--query-column", "q", "--document-column", "passage", "--score-column", "s")

    score_files(file, "--out", tmp_path / "out", *columns, "--raw-scores")

    [row] = read_rows(tmp_path / "out/rows.jsonl")
    assert row["s"] < 0


def test_numbers_escapes_and_the_order_of_fields_stay_as_they_are(tmp_path: Path) -> None:
    line = '{"id": 123456789012345678901234567890, "x": 1.10, "query": "q", "document": "\\ud83d"}'
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n\r\n")

    score_files(file, "--out", tmp_path / "out")

    [written] = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    assert written.startswith(line[:-1] + ',"relevance_score":')


def test_compressed_files_stay_compressed(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl.gz", pairs(20))

    score_files(file, "--out", tmp_path / "out")

    scored = read_rows(tmp_path / "out/rows.jsonl.gz")
    assert [row["id"] for row in scored] == list(range(20))


def test_more_candidates_than_a_request_may_have_are_scored(tmp_path: Path) -> None:
    documents = [f"query and {number}" for number in range(1500)]
    file = write_rows(tmp_path / "rows.jsonl", [{"query": "query", "documents": documents}])

    score_files(file, "--out", tmp_path / "out", "--max-documents", "100")

    [row] = read_rows(tmp_path / "out/rows.jsonl")
    assert len(row["relevance_score"]) == 1500


BAD = {
    "is not JSON": '{"query": "q", "document": ',
    "must be a JSON object, not an array": "[1, 2]",
    "no column 'query'; its columns are: document (see --query-column)": '{"document": "d"}',
    "no column 'document' or 'documents'": '{"query": "q"}',
    "'query' must not be empty": '{"query": " ", "document": "d"}',
    "'document' must be a string or an object with `text`, not null": (
        '{"query": "q", "document": null}'
    ),
    "'documents' must not be empty": '{"query": "q", "documents": []}',
    "'documents'[1] holds a picture": (
        '{"query": "q", "documents": ["a", {"image": "https://a.example/b.png"}]}'
    ),
    "column 'relevance_score' exists already": (
        '{"query": "q", "document": "d", "relevance_score": 1}'
    ),
    "query and instruction take": json.dumps({"query": "fox " * 100, "document": "d"}),
    "documents exceed": json.dumps({"query": "q", "document": "fox " * 300}),
}
LIMITS = ("--max-tokens", "128", "--truncation", "refuse")


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_row_is_an_error_with_file_and_line(tmp_path: Path, problem: str) -> None:
    good = json.dumps({"query": "q", "document": "d"})
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{good}\n\n{BAD[problem]}\n{good}\n")

    with pytest.raises(BadSettings) as refused:
        score_files(file, "--out", tmp_path / "out", *LIMITS)

    message = str(refused.value)
    assert message.startswith(f"{file}:3: ")
    assert problem in message
    assert not (tmp_path / "out/rows.jsonl").exists()


def test_bad_rows_are_kept_with_their_error_if_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps({"query": "q", "document": "d"})
    lines = [line for bad in BAD.values() for line in (good, bad)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))

    score_files(file, "--out", tmp_path / "out", *LIMITS, "--bad-rows", "keep")

    rows = read_rows(tmp_path / "out/rows.jsonl")
    assert len(rows) == len(lines)
    assert all("relevance_score_error" not in row for row in rows[::2])
    for number, (row, line) in enumerate(zip(rows[1::2], BAD.values(), strict=True)):
        assert row["relevance_score_error"].startswith(f"{file}:{2 * number + 2}: ")
        if line.endswith("}"):
            assert json.loads(line).items() <= row.items()
    assert f"{len(BAD)} rows could not be scored" in capsys.readouterr().err


def test_a_line_that_is_too_long_is_skipped_without_being_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_rows, "MAX_LINE_BYTES", 1000)
    long = {"query": "q", "document": "x" * 5000}
    file = write_rows(tmp_path / "rows.jsonl", [long, *pairs(1), long, *pairs(1, first=1)])

    score_files(file, "--out", tmp_path / "out", "--bad-rows", "keep")

    rows = read_rows(tmp_path / "out/rows.jsonl")
    assert [row.get("id") for row in rows] == [None, 0, None, 1]
    assert "has more than 1,000 bytes" in rows[2]["relevance_score_error"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["no.jsonl"], "cannot read"),
        (["rows.csv"], "the end of its name tells the format: one of .jsonl,"),
        (["a/rows.jsonl", "b/rows.jsonl"], "would both be written to"),
        (["empty"], "holds no files that end in .jsonl,"),
        (["."], "is in"),
        (["broken.jsonl.gz"], "cannot read"),
    ],
)
def test_wrong_files_are_refused_before_anything_is_scored(
    tmp_path: Path, names: Sequence[str], message: str
) -> None:
    for name in ("rows.csv", "a/rows.jsonl", "b/rows.jsonl"):
        write_rows(tmp_path / name, pairs(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl.gz").write_bytes(b"\x1f\x8b\x08nonsense")

    with pytest.raises(BadSettings, match=message):
        score_files(*[tmp_path / name for name in names], "--out", tmp_path / "out")

    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(2))

    with pytest.raises(BadSettings, match="is an input; choose another folder"):
        score_files(file, "--out", tmp_path)

    assert read_rows(file) == pairs(2)


def test_files_of_a_folder_keep_their_paths(tmp_path: Path) -> None:
    for name in ("day=1/part.jsonl", "day=2/part.jsonl", "_temporary/part.jsonl", ".x.jsonl"):
        write_rows(tmp_path / "in" / name, pairs(3))

    score_files(tmp_path / "in", "--out", tmp_path / "out")

    found = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/*/*.jsonl")}
    assert found == {"day=1/part.jsonl", "day=2/part.jsonl"}


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankd.offline.formats.find_spec", lambda _: None)
    (tmp_path / "rows.parquet").touch()

    with pytest.raises(BadSettings, match=r"install .*\[parquet\]'"):
        score_files(tmp_path / "rows.parquet", "--out", tmp_path / "out")


@pytest.mark.slow
def test_the_command_prints_throughput_and_errors_of_one_line(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", pairs(20))
    command = ("score", str(file), "--engine", "fake", "--out")

    ended = run(*command, str(tmp_path / "out"))
    refused = run(*command, str(tmp_path / "out2"), "--preset", "x", "--instruction", "y")

    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith("scored 20 rows in ")
    assert " rows/s, " in ended.stdout
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
