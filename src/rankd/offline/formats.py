"""The file formats of rows, chosen by the end of a file's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol

from rankd.errors import BadSettings
from rankd.installing import install_command
from rankd.offline import jsonl_rows
from rankd.offline.options import Columns
from rankd.offline.rows import BadRow, RowBatch, RowResult

_PARQUET = ".parquet"
SUFFIXES = (*jsonl_rows.SUFFIXES, _PARQUET)


class RowWriter(AbstractContextManager["RowWriter"], Protocol):
    """Writes rows in the order in which they were read."""

    def write(self, batch: RowBatch, results: Sequence[RowResult]) -> None:
        """Write a batch's rows, each with its result."""
        ...


class RowFile(Protocol):
    """The rows of one file: how they are read, and written again with scores."""

    path: Path

    def batches(self) -> Iterator[RowBatch]:
        """All rows in their order; raises `BadSettings` if the file cannot be read."""
        ...

    def writer(self, stream: IO[bytes]) -> RowWriter:
        """A writer to a stream, which stays open."""
        ...


def has_known_suffix(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def open_rows(path: Path, columns: Columns) -> RowFile:
    """The rows of a file.

    Raises:
        BadSettings: the file cannot be read, its format is unknown, or its columns are missing.
    """
    if not has_known_suffix(path):
        known = ", ".join(SUFFIXES)
        raise BadSettings(f"{path}: the end of its name tells the format: one of {known}")
    if not path.name.endswith(_PARQUET):
        return jsonl_rows.JsonlRows(path, columns)
    if find_spec("pyarrow") is None:
        raise BadSettings(f"{path}: Parquet needs pyarrow: {install_command('parquet')}")
    from rankd.offline.parquet_rows import ParquetRows

    return ParquetRows(path, columns)


def check_first_rows(rows: RowFile) -> None:
    """Raise `BadSettings` if the file cannot be read or its first row lacks a column.

    A wrong name in the command is found before anything is scored.
    """
    batches = rows.batches()
    for batch in batches:
        if isinstance(batch.rows[0], BadRow):
            raise BadSettings(str(batch.rows[0]))
        return
