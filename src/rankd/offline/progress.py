"""Shows how far `rankd score` is: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rankd.offline.outputs import FileJob
from rankd.offline.rows import RowCounts
from rankd.telemetry.terminal import is_terminal

# Seconds between two lines without a terminal.
_LINE_INTERVAL = 10.0


class Progress:
    """Rows, bytes and files that are done."""

    def __init__(self, jobs: Sequence[FileJob]) -> None:
        self._sizes = {job.name: job.source.stat().st_size for job in jobs}
        self._done: dict[str, RowCounts] = {}
        self._done_before = 0
        self._scored = RowCounts()
        self._rows = self._bytes = 0
        self._bar: tqdm[Any] | None = None
        self._began = self._last_line = time.monotonic()

    def begin(self) -> None:
        """Start the clock: the model is loaded."""
        self._began = self._last_line = time.monotonic()
        if is_terminal(sys.stderr):
            total = sum(self._sizes.values())
            self._bar = tqdm(total=total, initial=self._bytes, unit="B", unit_scale=True)

    def add(self, rows: int, size: int) -> None:
        """Note rows that are scored, and the bytes that they were read from."""
        self._rows += rows
        self._bytes += size
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._speed}, {self._files}", refresh=False)
            self._bar.update(size)
        elif time.monotonic() - self._last_line >= _LINE_INTERVAL:
            self._last_line = time.monotonic()
            share = self._bytes / max(1, sum(self._sizes.values()))
            _write(f"{share:.0%}, {self._files}, {self._rows:,} rows, {self._speed}")

    def file_was_done(self, job: FileJob, counts: RowCounts) -> None:
        """Note a file that an earlier command has scored."""
        self._done[job.name] = counts
        self._done_before += 1
        self._bytes += self._sizes[job.name]
        if self._bar is not None:
            self._bar.update(self._sizes[job.name])

    def file_done(self, job: FileJob, counts: RowCounts) -> None:
        """Note a file that is scored; `add` has counted its rows."""
        self._done[job.name] = counts
        self._scored += counts

    def stop(self) -> None:
        """End early; says what is kept."""
        self._close_bar()
        if self._done:
            _write(f"{self._files} are done: the same command goes on from there")

    def finish(self, out: Path) -> None:
        """Print the figures of the whole to stdout, and warnings to stderr."""
        self._close_bar()
        seconds = max(time.monotonic() - self._began, 1e-9)
        before = f" ({self._done_before} of them done before)" if self._done_before else ""
        print(  # noqa: T201
            f"scored {_count(self._scored.rows, 'row')} in {seconds:.1f} s: {self._speed}, "
            f"{self._scored.tokens / seconds:,.0f} tokens/s; "
            f"{_count(len(self._done), 'file')} in {out}{before}"
        )
        for warning in _warnings(sum(self._done.values(), RowCounts())):
            _write(warning)

    @property
    def _speed(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self._rows / seconds:,.0f} rows/s"

    @property
    def _files(self) -> str:
        return f"{len(self._done)} of {_count(len(self._sizes), 'file')}"

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _warnings(counts: RowCounts) -> list[str]:
    found = {
        f"{_count(counts.bad_rows, 'row')} could not be scored; their error is with them": (
            counts.bad_rows
        ),
        f"{_count(counts.truncated, 'document')} were cut, as --truncation says": counts.truncated,
        f"of {_count(counts.unwrapped, 'row')} Qwen3-Reranker's prompt was taken off, because "
        "rankd adds it": counts.unwrapped,
        f"{_count(counts.suspicious, 'row')} hold parts of Qwen3-Reranker's prompt; their scores "
        "are probably wrong": counts.suspicious,
    }
    return [sentence for sentence, count in found.items() if count]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _write(sentence: str) -> None:
    print(f"rankd: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
