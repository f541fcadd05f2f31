"""Comparisons of shadow scoring as lines of JSON, for `rankd eval --shadow-lines`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import BinaryIO

import orjson

from rankd.config.experiments import Shadow
from rankd.context import REQUEST_ID
from rankd.errors import BadSettings
from rankd.ranking.agreement import Agreement
from rankd.types import RankRequest

_log = logging.getLogger("rankd")


class ComparisonLog:
    """A file that lines are appended to, up to a size. Errors are logged once and raise nothing.

    Args:
        file: open for appending, without a buffer, so that each line is written whole.
        max_bytes: size at which writing ends.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._size = os.fstat(file.fileno()).st_size
        self._ended = False
        self._lock = asyncio.Lock()

    async def write(self, line: bytes) -> None:
        """Append a line, in a thread."""
        async with self._lock:
            if self._ended:
                return
            if self._size + len(line) > self._max_bytes:
                self._end(f"it has reached its maximum of {self._max_bytes:,} bytes")
                return
            try:
                await asyncio.to_thread(self._file.write, line)
            except OSError as problem:
                self._end(problem.strerror or str(problem))
                return
            self._size += len(line)

    def _end(self, reason: str) -> None:
        self._ended = True
        _log.warning("%s: %s; comparisons are only counted from now on", self._file.name, reason)


@contextmanager
def open_log(table: Shadow) -> Iterator[ComparisonLog]:
    """The file of a table; made if it does not exist, readable by its owner only."""
    assert table.log is not None
    try:
        file = open(table.log, "ab", buffering=0, opener=_private)  # noqa: SIM115
    except OSError as problem:
        reason = problem.strerror
        raise BadSettings(f"shadow {table.name!r}: cannot write {table.log}: {reason}") from None
    try:
        yield ComparisonLog(file, table.log_mb * 1024 * 1024)
    finally:
        with suppress(OSError):
            file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def comparison_line(
    table: Shadow,
    request: RankRequest,
    first: Sequence[float],
    second: Sequence[float],
    compared: Agreement,
    seconds: float,
) -> bytes:
    """One comparison. Digests stand for texts, unless the table wants them."""
    of = str if table.texts else digest_of
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "shadow": table.name,
        "request_id": REQUEST_ID.get(),
        "texts": table.texts,
        "query": of(request.query),
        "documents": list(map(of, request.documents)),
        "logits": list(first),
        "shadow_logits": list(second),
        "shadow_seconds": round(seconds, 4),
        **asdict(compared),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def digest_of(text: str) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
