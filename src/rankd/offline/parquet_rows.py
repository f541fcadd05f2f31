"""Reads and writes rows as Parquet. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankd.config.text import replace_surrogates
from rankd.errors import BadSettings, InvalidRequest
from rankd.offline.options import Columns
from rankd.offline.rows import (
    BATCH_BYTES,
    BATCH_ROWS,
    BadRow,
    Row,
    RowBatch,
    RowResult,
    document_column,
    missing,
    read_row,
    refuse_added,
)

SUFFIXES = (".parquet",)

# Bytes that are read of a column at a time, instead of a row group's whole column.
_BUFFER_BYTES = 1024 * 1024


class ParquetRows:
    """The rows of a file. Its output has all columns that rankd adds, so that outputs fit together.

    Raises:
        BadSettings: the file cannot be read, or lacks a column; names those that it has.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns
        try:
            with pq.ParquetFile(path) as file:
                self._schema: Any = file.schema_arrow
            self._document = _check_columns(self._schema, columns)
        except (OSError, pa.ArrowException) as problem:
            raise self._unreadable(problem) from None
        except InvalidRequest as problem:
            raise BadSettings(f"{path}: {problem.message}") from None

    def batches(self) -> Iterator[RowBatch]:
        """All rows in their order; raises `BadSettings` if the file cannot be read."""
        try:
            with pq.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                yield from self._batches(file)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as problem:
            raise self._unreadable(problem) from None

    def writer(self, stream: IO[bytes]) -> ParquetWriter:
        """Writes the scored rows to a stream, which stays open."""
        columns = self.columns
        values = {
            columns.score: pa.float64(),
            columns.normalized: pa.float64(),
            columns.truncated: pa.bool_(),
        }
        is_list = _is_list(self._schema.field(self._document).type)
        fields = [
            pa.field(name, pa.list_(kind) if is_list else kind) for name, kind in values.items()
        ]
        fields.append(pa.field(columns.error, pa.string()))
        schema = pa.schema([*self._schema, *fields], self._schema.metadata)
        return ParquetWriter(stream, schema, fields, columns)

    def _batches(self, file: Any) -> Iterator[RowBatch]:
        total = max(file.metadata.num_rows, 1)
        size = self.path.stat().st_size
        done = 0
        for table in file.iter_batches(_batch_rows(file.metadata)):
            names = [self.columns.query, self._document, self.columns.instruction]
            wanted = [name for name in names if name in table.schema.names]
            records = table.select(wanted).to_pylist()
            rows = [
                read_row(f"{self.path}:{number}", record, self.columns)
                for number, record in enumerate(records, done + 1)
            ]
            done += len(rows)
            yield RowBatch(rows, table, size * done // total)

    def _unreadable(self, problem: Exception) -> BadSettings:
        reason = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
        return BadSettings(f"cannot read {self.path}: {reason}")


class ParquetWriter:
    """Writes rows with their scores; leaving the context writes the file's footer."""

    def __init__(self, stream: IO[bytes], schema: Any, fields: list[Any], columns: Columns) -> None:
        self._writer: Any = pq.ParquetWriter(stream, schema)
        self._schema = schema
        self._fields = fields
        self._columns = columns

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, batch: RowBatch, results: Sequence[RowResult]) -> None:
        values = [
            self._values(row, result) for row, result in zip(batch.rows, results, strict=True)
        ]
        added = [
            pa.array([value.get(field.name) for value in values], field.type)
            for field in self._fields
        ]
        arrays = [*batch.raw.columns, *added]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _values(self, row: Row | BadRow, result: RowResult) -> dict[str, Any]:
        problem = row if isinstance(row, BadRow) else result
        if isinstance(problem, BadRow):
            return {self._columns.error: replace_surrogates(str(problem))}
        assert isinstance(row, Row)
        return problem.columns(row, self._columns)


def _batch_rows(metadata: Any) -> int:
    """Rows per batch, by the average size of a row."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    mean = int(max(1, size // max(1, metadata.num_rows)))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // mean))


def _check_columns(schema: Any, columns: Columns) -> str:
    """The column with the documents; raises `InvalidRequest` if one is missing or taken."""
    names = dict.fromkeys(schema.names)
    refuse_added(names, columns)
    if columns.query not in names:
        raise InvalidRequest(missing(repr(columns.query), names, "query"))
    if columns.instruction is not None and columns.instruction not in names:
        raise InvalidRequest(missing(repr(columns.instruction), names, "instruction"))
    document = document_column(names, columns)
    for name in filter(None, (columns.query, document, columns.instruction)):
        kind = schema.field(name).type
        if not _is_text(kind) and not (name == document and _is_list(kind)):
            raise InvalidRequest(f"column {name!r} must hold texts, not {kind}")
    return document


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_text(kind: Any) -> bool:
    """Strings, and objects with a `text`; null is the type of an empty column."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_struct(kind)
        or pa.types.is_null(kind)
    )
