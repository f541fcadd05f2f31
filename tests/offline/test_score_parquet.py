"""`rankd score` on Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankd.errors import BadSettings
from support.offline import pairs, read_rows, score_files, write_rows


def write_table(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.replace_schema_metadata({"made by": "a test"}), path, **options)
    return path


def test_rows_get_the_scores_that_json_lines_get(tmp_path: Path) -> None:
    rows = pairs(1300)
    table = write_table(tmp_path / "rows.parquet", rows, row_group_size=700)
    lines = write_rows(tmp_path / "rows.jsonl", rows)

    score_files(table, lines, "--out", tmp_path / "out")

    scored = pq.read_table(tmp_path / "out/rows.parquet")
    expected = read_rows(tmp_path / "out/rows.jsonl")
    assert scored.column("id").to_pylist() == [row["id"] for row in rows]
    assert scored.column("relevance_score").to_pylist() == [r["relevance_score"] for r in expected]
    assert scored.schema.metadata[b"made by"] == b"a test"
    assert scored.column("relevance_score_error").null_count == 1300


def test_a_list_of_candidates_gets_a_list_of_scores(tmp_path: Path) -> None:
    rows = [{"query": f"query {n}", "documents": [f"query {k}" for k in range(n)]} for n in (3, 1)]
    file = write_table(tmp_path / "rows.parquet", rows)

    score_files(file, "--out", tmp_path / "out")

    scored = pq.read_table(tmp_path / "out/rows.parquet").to_pylist()
    assert [len(row["relevance_score"]) for row in scored] == [3, 1]
    assert scored[0]["relevance_score_truncated"] == [False] * 3


def test_a_null_is_a_bad_row_with_its_number(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*pairs(2), {"id": 2, "query": None, "document": "d"}]
    file = write_table(tmp_path / "rows.parquet", rows)

    with pytest.raises(BadSettings) as refused:
        score_files(file, "--out", tmp_path / "out")
    score_files(file, "--out", tmp_path / "out", "--bad-rows", "keep")

    assert str(refused.value).startswith(f"{file}:3: 'query' must be a string")
    scored = pq.read_table(tmp_path / "out/rows.parquet").to_pylist()
    assert [row["relevance_score"] is None for row in scored] == [False, False, True]
    assert scored[2]["relevance_score_error"].startswith(f"{file}:3: ")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q"}, "no column 'document' or 'documents'; its columns are: query"),
        ({"query": 1, "document": "d"}, "column 'query' must hold texts, not int64"),
        ({"query": "q", "document": "d", "relevance_score": 1.0}, "exists already"),
    ],
)
def test_wrong_columns_are_an_error_before_anything_is_scored(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    file = write_table(tmp_path / "rows.parquet", [row])

    with pytest.raises(BadSettings, match=message):
        score_files(file, "--out", tmp_path / "out")


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"nonsense")

    with pytest.raises(BadSettings, match=r"cannot read .*rows\.parquet: "):
        score_files(tmp_path / "rows.parquet", "--out", tmp_path / "out")


def test_an_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    schema = pa.schema([("query", pa.string()), ("document", pa.large_string())])
    pq.write_table(schema.empty_table(), tmp_path / "rows.parquet")

    score_files(tmp_path / "rows.parquet", "--out", tmp_path / "out")

    written = pq.read_table(tmp_path / "out/rows.parquet")
    assert written.num_rows == 0
    assert "relevance_score" in written.schema.names
