"""Every statement there is. Each function runs inside one transaction; see `Database.do`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from rankd.batches.records import CANCELLABLE, UNFINISHED, File, Job, LineResult, Status, now

_JSON = ("metadata", "stamps", "errors")


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _insert(db: sqlite3.Connection, /, table: str, row: dict[str, Any]) -> None:
    # Names of columns are ours; values are bound.
    statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({_marks(list(row))})"
    db.execute(statement, list(row.values()))


# Files.


def add_file(db: sqlite3.Connection, /, file: File) -> None:
    _insert(db, "files", asdict(file))


def file(db: sqlite3.Connection, /, owner: str, name: str) -> File | None:
    """One that its owner may still read."""
    row = db.execute(
        "SELECT * FROM files WHERE id = ? AND owner = ? AND expires_at > ?", (name, owner, now())
    ).fetchone()
    return None if row is None else File(**row)


def files(
    db: sqlite3.Connection,
    /,
    owner: str,
    *,
    purpose: str | None,
    after: str | None,
    ascending: bool,
    most: int,
) -> list[File]:
    """A page of them, in the order of their making."""
    order, beyond = ("ASC", ">") if ascending else ("DESC", "<")
    where, values = ["owner = ?", "expires_at > ?"], [owner, now()]
    if purpose is not None:
        where.append("purpose = ?")
        values.append(purpose)
    if after is not None:
        where.append(f"rowid {beyond} (SELECT rowid FROM files WHERE id = ? AND owner = ?)")
        values += [after, owner]
    rows = db.execute(
        f"SELECT * FROM files WHERE {' AND '.join(where)} ORDER BY rowid {order} LIMIT ?",
        (*values, most),
    )
    return [File(**row) for row in rows]


def _user_of_file(db: sqlite3.Connection, /, name: str) -> str | None:
    """The unfinished job that reads a file, if there is one."""
    row = db.execute(
        f"SELECT id FROM batches WHERE input_file_id = ? AND status IN ({_marks(UNFINISHED)})",
        (name, *UNFINISHED),
    ).fetchone()
    return None if row is None else str(row["id"])


def delete_file(db: sqlite3.Connection, /, owner: str, name: str) -> tuple[File | None, str | None]:
    """The file that is there no more, or that an unfinished job still reads, and that job."""
    found = file(db, owner, name)
    user = None if found is None else _user_of_file(db, name)
    if user is None:
        db.execute("DELETE FROM files WHERE id = ? AND owner = ?", (name, owner))
    return found, user


def stored_bytes(db: sqlite3.Connection, /) -> int:
    """Of all files, and of answers that will be files."""
    [files] = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM files").fetchone()
    [answers] = db.execute("SELECT COALESCE(SUM(LENGTH(row)), 0) FROM answers").fetchone()
    return int(files) + int(answers)


def known_files(db: sqlite3.Connection, /) -> set[str]:
    return {row["id"] for row in db.execute("SELECT id FROM files")}


def drop_expired(db: sqlite3.Connection, /, oldest: int) -> list[str]:
    """Forget files whose time is over, and jobs that ended before `oldest`.

    Returns:
        The files whose bytes are to be deleted.
    """
    rows = db.execute(
        "SELECT id FROM files WHERE expires_at <= ? AND id NOT IN "
        f"(SELECT input_file_id FROM batches WHERE status IN ({_marks(UNFINISHED)}))",
        (now(), *UNFINISHED),
    ).fetchall()
    names = [row["id"] for row in rows]
    db.executemany("DELETE FROM files WHERE id = ?", [(name,) for name in names])
    db.execute(
        f"DELETE FROM batches WHERE created_at < ? AND status NOT IN ({_marks(UNFINISHED)})",
        (oldest, *UNFINISHED),
    )
    db.execute(
        "DELETE FROM answers WHERE batch NOT IN "
        f"(SELECT id FROM batches WHERE status IN ({_marks(UNFINISHED)}))",
        UNFINISHED,
    )
    # Give the file system back what finished jobs took.
    db.execute("PRAGMA incremental_vacuum").fetchall()
    return names


# Jobs.


def add_batch(db: sqlite3.Connection, /, batch: Job, most: int) -> int | None:
    """Add it, unless its owner has as many unfinished ones; None when its file is gone.

    Returns:
        How many unfinished jobs the owner had before.
    """
    if file(db, batch.owner, batch.input_file_id) is None:
        return None
    running = len(unfinished(db, batch.owner))
    if running < most:
        _insert_batch(db, batch)
    return running


def _insert_batch(db: sqlite3.Connection, /, batch: Job) -> None:
    row = {each.name: getattr(batch, each.name) for each in fields(batch)}
    for name in _JSON:
        row[name] = None if row[name] is None else json.dumps(row[name])
    _insert(db, "batches", row)


def batch(db: sqlite3.Connection, /, name: str, owner: str | None = None) -> Job | None:
    """One job; of any owner where none is named."""
    row = db.execute("SELECT * FROM batches WHERE id = ?", (name,)).fetchone()
    if row is None or owner not in (None, row["owner"]):
        return None
    return _batch(row)


def batches(db: sqlite3.Connection, /, owner: str, *, after: str | None, most: int) -> list[Job]:
    """A page of them, the newest first."""
    where, values = "owner = ?", [owner]
    if after is not None:
        where += " AND rowid < (SELECT rowid FROM batches WHERE id = ? AND owner = ?)"
        values += [after, owner]
    rows = db.execute(
        f"SELECT * FROM batches WHERE {where} ORDER BY rowid DESC LIMIT ?", (*values, most)
    )
    return [_batch(row) for row in rows]


def unfinished(db: sqlite3.Connection, /, owner: str | None = None) -> list[str]:
    """Jobs with something left to do, the oldest first; of everyone where nobody is named."""
    rows = db.execute(
        f"SELECT id FROM batches WHERE status IN ({_marks(UNFINISHED)}) "
        "AND (?1 IS NULL OR owner = ?1) ORDER BY rowid".replace("?1", f"?{len(UNFINISHED) + 1}"),
        (*UNFINISHED, owner),
    )
    return [row["id"] for row in rows]


def move(
    db: sqlite3.Connection, /, name: str, to: Status, *, out_of: Sequence[Status], **changes: Any
) -> Job | None:
    """Bring a job from one of some statuses into another; None when it is in none of them."""
    found = batch(db, name)
    if found is None or found.status not in out_of:
        return None
    values = {"status": to, "stamps": {**found.stamps, to: now()}, **changes}
    for key in _JSON:
        if key in values:
            values[key] = json.dumps(values[key])
    assignments = ", ".join(f"{key} = ?" for key in values)
    db.execute(f"UPDATE batches SET {assignments} WHERE id = ?", (*values.values(), name))
    return batch(db, name)


def cancel(db: sqlite3.Connection, /, name: str, owner: str) -> tuple[Job | None, bool]:
    """The job as it is now, and whether it is being cancelled."""
    moved = None
    found = batch(db, name, owner)
    if found is not None:
        moved = move(db, name, "cancelling", out_of=CANCELLABLE)
    current = moved or found
    return current, current is not None and current.status in ("cancelling", "cancelled")


def _batch(row: sqlite3.Row) -> Job:
    values = dict(row)
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    return Job(**values)


# Answers.


def keep(db: sqlite3.Connection, /, answers: Iterable[LineResult]) -> None:
    """Add them and count them; one that is there already stays, and counts once."""
    for answer in answers:
        added = db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)",
            (answer.batch, answer.line, answer.is_good, answer.row),
        ).rowcount
        column = "completed" if answer.is_good else "failed"
        db.execute(
            f"UPDATE batches SET {column} = {column} + ? WHERE id = ?", (added, answer.batch)
        )


def answered(db: sqlite3.Connection, /, name: str) -> set[int]:
    """The lines of a job that need not be computed again."""
    rows = db.execute("SELECT line FROM answers WHERE batch = ?", (name,))
    return {row["line"] for row in rows}


def answers(db: sqlite3.Connection, /, name: str) -> Iterator[LineResult]:
    """In the order of the lines."""
    for row in db.execute("SELECT * FROM answers WHERE batch = ? ORDER BY line", (name,)):
        yield LineResult(row["batch"], row["line"], bool(row["is_good"]), row["row"])


def finish(
    db: sqlite3.Connection, /, name: str, to: Status, outcome: Sequence[File | None], failed: int
) -> None:
    """A job's files are there: name them, and forget the answers that are in them.

    Args:
        outcome: the output file and the error file; None is an empty one.
        failed: lines in the latter.
    """
    for one in outcome:
        if one is not None:
            add_file(db, one)
    output, errors = (None if one is None else one.id for one in outcome)
    move(
        db,
        name,
        to,
        out_of=UNFINISHED,
        output_file_id=output,
        error_file_id=errors,
        failed=failed,
    )
    db.execute("DELETE FROM answers WHERE batch = ?", (name,))
