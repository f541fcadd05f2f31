"""Reads and writes rows as JSON Lines, plain or compressed with gzip.

An output line is the input line as it was read, with columns added at its end: numbers keep their
digits, objects their order.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import orjson

from rankd.config.text import replace_surrogates
from rankd.dialects.json_io import loads
from rankd.dialects.json_values import type_name
from rankd.errors import BadSettings
from rankd.offline.options import Columns
from rankd.offline.rows import (
    BATCH_BYTES,
    BATCH_ROWS,
    BadRow,
    Row,
    RowBatch,
    RowResult,
    RowScores,
    read_row,
)

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")

# Longest line. A server with default limits reads no longer request.
MAX_LINE_BYTES = 32 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonlRows:
    """The rows of a file."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self.columns = columns

    def batches(self) -> Iterator[RowBatch]:
        """All rows but blank lines, in their order.

        Raises:
            BadSettings: the file cannot be read.
        """
        try:
            with ExitStack() as stack:
                file: IO[bytes] = stack.enter_context(self.path.open("rb"))
                stream = file
                if self._is_compressed:
                    stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file)))
                yield from self._batches(file, stream)
        except (OSError, EOFError, zlib.error) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise BadSettings(f"cannot read {self.path}: {reason}") from None

    def writer(self, stream: IO[bytes]) -> JsonlWriter:
        """Writes the scored rows to a stream, which stays open."""
        return JsonlWriter(stream, self.columns, compressed=self._is_compressed)

    @property
    def _is_compressed(self) -> bool:
        return self.path.suffix == ".gz"

    def _batches(self, file: IO[bytes], stream: IO[bytes]) -> Iterator[RowBatch]:
        rows: list[Row | BadRow] = []
        lines: list[bytes] = []
        size = 0
        for number, line in self._lines(stream):
            rows.append(self._row(f"{self.path}:{number}", line))
            lines.append(line)
            size += len(line)
            if len(rows) == BATCH_ROWS or size >= BATCH_BYTES:
                yield RowBatch(rows, lines, file.tell())
                rows, lines, size = [], [], 0
        if rows:
            yield RowBatch(rows, lines, file.tell())

    def _lines(self, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """Each line that is not blank, after its number; of one that is too long its beginning."""
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES + 1)
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if stripped := line.strip():
                yield number, stripped

    def _row(self, location: str, line: bytes) -> Row | BadRow:
        if len(line) > MAX_LINE_BYTES:
            return BadRow(location, f"has more than {MAX_LINE_BYTES:,} bytes: split it")
        try:
            value = loads(line)
        except orjson.JSONDecodeError as problem:
            return BadRow(location, f"is not JSON: {problem.msg}")
        if not isinstance(value, dict):
            return BadRow(location, f"must be a JSON object, not {type_name(value)}")
        return read_row(location, value, self.columns)


class JsonlWriter:
    """Writes rows with their scores; leaving the context writes what is buffered."""

    def __init__(self, stream: IO[bytes], columns: Columns, *, compressed: bool) -> None:
        self._columns = columns
        # Without a time and a name equal rows make equal files.
        packed = gzip.GzipFile("", "wb", fileobj=stream, mtime=0) if compressed else None
        self._packed = packed
        self._stream = stream if packed is None else cast(IO[bytes], packed)

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._packed is not None:
            self._packed.close()

    def write(self, batch: RowBatch, results: Sequence[RowResult]) -> None:
        rows = zip(batch.rows, cast(list[bytes], batch.raw), results, strict=True)
        self._stream.writelines(self._line(row, line, result) for row, line, result in rows)

    def _line(self, row: Row | BadRow, line: bytes, result: RowResult) -> bytes:
        problem = row if isinstance(row, BadRow) else result
        if isinstance(problem, BadRow):
            line = line if _is_object(line) else b"{}"
            return _extended(line, {self._columns.error: replace_surrogates(str(problem))})
        return _extended(line, self._added(cast(Row, row), problem))

    def _added(self, row: Row, scores: RowScores) -> dict[str, object]:
        added = scores.columns(row, self._columns)
        if not any(scores.truncated):
            del added[self._columns.truncated]
        return added


def _extended(line: bytes, added: dict[str, object]) -> bytes:
    """The line of a JSON object with fields added at its end."""
    begin = line[:-1].rstrip()
    return begin + (b"" if begin == b"{" else b",") + orjson.dumps(added)[1:] + b"\n"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except orjson.JSONDecodeError:
        return False
