"""The two files that a job ends with, written beside the database and then named in it."""

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

# What is said of a line that was not run, by how its job ended.
_REASONS = {
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
class Results:
    """What `write` has written.

    Attributes:
        output: answers with status 200, in the order of the lines; None when there are none.
        errors: the other lines, likewise.
        failed: how many those are.
    """

    output: File | None
    errors: File | None
    failed: int


def write(database: Path, folder: Path, batch: Job, ending: Status, most_bytes: int) -> Results:
    """Write both files, safe against a power cut; blocks.

    Args:
        folder: where files lie.
        most_bytes: of the body of one line.
    """
    with ExitStack() as stack:
        output = stack.enter_context(_appearing(folder))
        errors = stack.enter_context(_appearing(folder))
        failed = 0
        for is_good, row in _rows(database, folder, batch, ending, most_bytes):
            (output if is_good else errors).write(row)
            failed += not is_good
        sizes = output.tell(), errors.tell()
    made = [
        _file(batch, output, sizes[0], "output"),
        _file(batch, errors, sizes[1], "error"),
    ]
    return Results(made[0], made[1], failed)


def unwrite(folder: Path, files: Iterable[File | None]) -> None:
    """Delete what `write` has written."""
    for file in files:
        if file is not None:
            (folder / file.id).unlink(missing_ok=True)


def _rows(
    database: Path, folder: Path, batch: Job, ending: Status, most_bytes: int
) -> Iterator[tuple[bool, bytes]]:
    """For every line one, in their order."""
    with closing(connect(database)) as db:
        if ending not in _REASONS:
            yield from ((answer.is_good, answer.row) for answer in queries.answers(db, batch.id))
            return
        answered = queries.answers(db, batch.id)
        answer = next(answered, None)
        path = folder / batch.input_file_id
        # Nothing of a file is run before it was found good.
        waiting = lines.requests(path, batch.endpoint, most_bytes, ()) if batch.total else ()
        for line in waiting:
            if answer is not None and answer.line == line.number:
                yield answer.is_good, answer.row
                answer = next(answered, None)
            else:
                yield False, lines.unanswered(line.custom_id, *_REASONS[ending])


@contextmanager
def _appearing(folder: Path) -> Iterator[IO[bytes]]:
    """A new file under an id of its own, that is whole when it is there; an empty one is not."""
    path = folder / new_id("file-")
    arriving = path.with_suffix(".part")
    try:
        with create(arriving) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            empty = file.tell() == 0
        if empty:
            arriving.unlink()
        else:
            arriving.rename(path)
            sync(folder)
    except BaseException:
        arriving.unlink(missing_ok=True)
        raise


def create(path: Path) -> IO[bytes]:
    """A new file, which nobody but the server's own user reads."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def sync(folder: Path) -> None:
    """Make a name that was given in a folder safe against a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file(batch: Job, written: IO[bytes], size: int, kind: str) -> File | None:
    if not size:
        return None
    made = now()
    return File(
        id=Path(written.name).stem,
        owner=batch.owner,
        filename=f"{batch.id}_{kind}.jsonl",
        purpose="batch_output",
        bytes=size,
        created_at=made,
        expires_at=made + batch.output_seconds,
    )
