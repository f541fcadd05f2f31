"""Writes the output file and the error file of a finished job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rankd.batches import lines, queries
from rankd.batches.database import connect
from rankd.batches.records import File, Job, Status, new_id, now

# Code and message for lines that were not run, by the last status of the job.
_NOT_RUN = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}


@dataclass(frozen=True)
class OutputFiles:
    """Files that are on disk but not yet in the database.

    Attributes:
        output: results with status 200, in line order; None if there are none.
        errors: all other lines, in line order; None if there are none.
        failed: lines in `errors`.
    """

    output: File | None
    errors: File | None
    failed: int


def write(database: Path, folder: Path, job: Job, ending: Status, max_bytes: int) -> OutputFiles:
    """Write both files durably (fsync). Blocks.

    Args:
        folder: holds the bytes of all files.
        ending: the last status of the job; decides what lines without a result get.
        max_bytes: of one line's body.
    """
    with ExitStack() as stack:
        output = stack.enter_context(_new_file(folder))
        errors = stack.enter_context(_new_file(folder))
        failed = 0
        for succeeded, row in _rows(database, folder, job, ending, max_bytes):
            (output if succeeded else errors).write(row)
            failed += not succeeded
        sizes = output.tell(), errors.tell()
    return OutputFiles(
        _file(job, output, sizes[0], "output"), _file(job, errors, sizes[1], "error"), failed
    )


def delete(folder: Path, files: Iterable[File | None]) -> None:
    """Delete files that `write` has written."""
    for file in files:
        if file is not None:
            (folder / file.id).unlink(missing_ok=True)


def _rows(
    database: Path, folder: Path, job: Job, ending: Status, max_bytes: int
) -> Iterator[tuple[bool, bytes]]:
    """For every line, in order: whether it succeeded, and its output line."""
    with closing(connect(database)) as db:
        results = queries.results_of(db, job.id)
        if ending not in _NOT_RUN:
            yield from ((result.succeeded, result.row) for result in results)
            return
        result = next(results, None)
        path = folder / job.input_file_id
        # Without a total the file was not checked, so its lines cannot be read.
        all_lines = lines.read_lines(path, job.endpoint, max_bytes, ()) if job.total else ()
        for line in all_lines:
            if result is not None and result.line == line.number:
                yield result.succeeded, result.row
                result = next(results, None)
            else:
                yield False, lines.error_line(line.custom_id, *_NOT_RUN[ending])


@contextmanager
def _new_file(folder: Path) -> Iterator[IO[bytes]]:
    """A file with a new id that appears under its name when complete; deleted if empty."""
    path = folder / new_id("file-")
    partial = path.with_suffix(".part")
    try:
        with create(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            empty = file.tell() == 0
        if empty:
            partial.unlink()
        else:
            partial.rename(path)
            sync_folder(folder)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def create(path: Path) -> IO[bytes]:
    """Create a file that only the server's user can read (mode 0600)."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a new name in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file(job: Job, written: IO[bytes], size: int, kind: str) -> File | None:
    if not size:
        return None
    created_at = now()
    return File(
        id=Path(written.name).stem,
        owner=job.owner,
        filename=f"{job.id}_{kind}.jsonl",
        purpose="batch_output",
        bytes=size,
        created_at=created_at,
        expires_at=created_at + job.output_seconds,
    )
