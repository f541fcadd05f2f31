"""All SQL. Each function runs inside one transaction of `Database.run`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from rankd.batches.records import CANCELLABLE, UNFINISHED, File, Job, LineResult, Status, now

_JSON_COLUMNS = ("metadata", "stamps", "errors")


def _placeholders(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


_UNFINISHED_SQL = f"status IN ({_placeholders(UNFINISHED)})"


def _insert(db: sqlite3.Connection, /, table: str, row: dict[str, Any]) -> None:
    # Column names come from our own dataclasses; values are bound.
    statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({_placeholders(list(row))})"
    db.execute(statement, list(row.values()))


# Files.


def add_file(db: sqlite3.Connection, /, file: File) -> None:
    _insert(db, "files", asdict(file))


def get_file(db: sqlite3.Connection, /, owner: str, file_id: str) -> File | None:
    """A file of this owner; None if there is none or it has expired."""
    row = db.execute(
        "SELECT * FROM files WHERE id = ? AND owner = ? AND expires_at > ?",
        (file_id, owner, now()),
    ).fetchone()
    return None if row is None else File(**row)


def list_files(
    db: sqlite3.Connection,
    /,
    owner: str,
    *,
    purpose: str | None,
    after: str | None,
    ascending: bool,
    limit: int,
) -> list[File]:
    """At most `limit` files in order of creation, beginning after the file `after`."""
    order, comparison = ("ASC", ">") if ascending else ("DESC", "<")
    where, values = ["owner = ?", "expires_at > ?"], [owner, now()]
    if purpose is not None:
        where.append("purpose = ?")
        values.append(purpose)
    if after is not None:
        where.append(f"rowid {comparison} (SELECT rowid FROM files WHERE id = ? AND owner = ?)")
        values += [after, owner]
    rows = db.execute(
        f"SELECT * FROM files WHERE {' AND '.join(where)} ORDER BY rowid {order} LIMIT ?",
        (*values, limit),
    )
    return [File(**row) for row in rows]


def _job_reading(db: sqlite3.Connection, /, file_id: str) -> str | None:
    """The id of an unfinished job whose input is this file."""
    row = db.execute(
        f"SELECT id FROM batches WHERE input_file_id = ? AND {_UNFINISHED_SQL}",
        (file_id, *UNFINISHED),
    ).fetchone()
    return None if row is None else str(row["id"])


def delete_file(
    db: sqlite3.Connection, /, owner: str, file_id: str
) -> tuple[File | None, str | None]:
    """Delete a file unless an unfinished job reads it.

    Returns:
        The file, and the id of the job that prevented its deletion.
    """
    file = get_file(db, owner, file_id)
    job_id = None if file is None else _job_reading(db, file_id)
    if job_id is None:
        db.execute("DELETE FROM files WHERE id = ? AND owner = ?", (file_id, owner))
    return file, job_id


def stored_bytes(db: sqlite3.Connection, /) -> int:
    """Bytes of all files and of all results that are not yet in files."""
    [files] = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM files").fetchone()
    [results] = db.execute("SELECT COALESCE(SUM(LENGTH(row)), 0) FROM answers").fetchone()
    return int(files) + int(results)


def newest_time(db: sqlite3.Connection, /) -> int | None:
    """The newest time that is stored, in seconds since the epoch; None: the database is empty."""
    [newest] = db.execute(
        "SELECT MAX(time) FROM (SELECT MAX(seen) AS time FROM clock UNION ALL "
        "SELECT MAX(created_at) FROM files UNION ALL SELECT MAX(created_at) FROM batches)"
    ).fetchone()
    return None if newest is None else int(newest)


def set_clock(db: sqlite3.Connection, /) -> None:
    """Store the time."""
    db.execute("DELETE FROM clock")
    db.execute("INSERT INTO clock VALUES (?)", (now(),))


def file_ids(db: sqlite3.Connection, /) -> set[str]:
    return {row["id"] for row in db.execute("SELECT id FROM files")}


def delete_expired(db: sqlite3.Connection, /, before: int) -> list[str]:
    """Delete expired files, and finished jobs created before a time in seconds.

    Returns:
        Ids of the deleted files; their bytes are still on disk.
    """
    rows = db.execute(
        "SELECT id FROM files WHERE expires_at <= ? AND id NOT IN "
        f"(SELECT input_file_id FROM batches WHERE {_UNFINISHED_SQL})",
        (now(), *UNFINISHED),
    ).fetchall()
    deleted = [row["id"] for row in rows]
    db.executemany("DELETE FROM files WHERE id = ?", [(file_id,) for file_id in deleted])
    db.execute(
        f"DELETE FROM batches WHERE created_at < ? AND NOT {_UNFINISHED_SQL}",
        (before, *UNFINISHED),
    )
    db.execute(
        f"DELETE FROM answers WHERE batch NOT IN (SELECT id FROM batches WHERE {_UNFINISHED_SQL})",
        UNFINISHED,
    )
    # Return the pages of finished jobs to the file system.
    db.execute("PRAGMA incremental_vacuum").fetchall()
    return deleted


# Jobs.


def add_job(db: sqlite3.Connection, /, job: Job, max_unfinished: int) -> int | None:
    """Add a job, unless its owner already has `max_unfinished` unfinished ones.

    Returns:
        How many unfinished jobs the owner had before; None if the input file is gone.
    """
    if get_file(db, job.owner, job.input_file_id) is None:
        return None
    unfinished = len(unfinished_jobs(db, job.owner))
    if unfinished < max_unfinished:
        _insert_job(db, job)
    return unfinished


def _insert_job(db: sqlite3.Connection, /, job: Job) -> None:
    row = {column.name: getattr(job, column.name) for column in fields(job)}
    for name in _JSON_COLUMNS:
        row[name] = None if row[name] is None else json.dumps(row[name])
    _insert(db, "batches", row)


def get_job(db: sqlite3.Connection, /, job_id: str, owner: str | None = None) -> Job | None:
    """One job; `owner=None` finds the jobs of every owner."""
    row = db.execute("SELECT * FROM batches WHERE id = ?", (job_id,)).fetchone()
    if row is None or owner not in (None, row["owner"]):
        return None
    return _job(row)


def list_jobs(db: sqlite3.Connection, /, owner: str, *, after: str | None, limit: int) -> list[Job]:
    """At most `limit` jobs, newest first, beginning after the job `after`."""
    where, values = "owner = ?", [owner]
    if after is not None:
        where += " AND rowid < (SELECT rowid FROM batches WHERE id = ? AND owner = ?)"
        values += [after, owner]
    rows = db.execute(
        f"SELECT * FROM batches WHERE {where} ORDER BY rowid DESC LIMIT ?", (*values, limit)
    )
    return [_job(row) for row in rows]


def unfinished_jobs(db: sqlite3.Connection, /, owner: str | None = None) -> list[str]:
    """Ids of unfinished jobs, oldest first; `owner=None` is every owner."""
    where, values = _UNFINISHED_SQL, list[str](UNFINISHED)
    if owner is not None:
        where += " AND owner = ?"
        values.append(owner)
    rows = db.execute(f"SELECT id FROM batches WHERE {where} ORDER BY rowid", values)
    return [row["id"] for row in rows]


def change_status(
    db: sqlite3.Connection,
    /,
    job_id: str,
    status: Status,
    *,
    only_from: Sequence[Status],
    **columns: Any,
) -> Job | None:
    """Set the status of a job, its time stamp, and other columns.

    Returns:
        The changed job; None if its status is not in `only_from`.
    """
    job = get_job(db, job_id)
    if job is None or job.status not in only_from:
        return None
    values = {"status": status, "stamps": {**job.stamps, status: now()}, **columns}
    for name in _JSON_COLUMNS:
        if name in values:
            values[name] = json.dumps(values[name])
    assignments = ", ".join(f"{name} = ?" for name in values)
    db.execute(f"UPDATE batches SET {assignments} WHERE id = ?", (*values.values(), job_id))
    return get_job(db, job_id)


def cancel_job(db: sqlite3.Connection, /, job_id: str, owner: str) -> tuple[Job | None, bool]:
    """The job after the attempt, and whether it is cancelling or cancelled."""
    changed = None
    job = get_job(db, job_id, owner)
    if job is not None:
        changed = change_status(db, job_id, "cancelling", only_from=CANCELLABLE)
    current = changed or job
    return current, current is not None and current.status in ("cancelling", "cancelled")


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    for name in _JSON_COLUMNS:
        values[name] = None if values[name] is None else json.loads(values[name])
    return Job(**values)


# Results of lines, in the table `answers`.


def add_results(db: sqlite3.Connection, /, results: Iterable[LineResult]) -> None:
    """Store results and count them; a line that already has a result keeps it."""
    for result in results:
        added = db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)",
            (result.job_id, result.line, result.succeeded, result.row),
        ).rowcount
        column = "completed" if result.succeeded else "failed"
        db.execute(
            f"UPDATE batches SET {column} = {column} + ? WHERE id = ?", (added, result.job_id)
        )


def lines_with_results(db: sqlite3.Connection, /, job_id: str) -> set[int]:
    """Numbers of the lines that need not be run again."""
    rows = db.execute("SELECT line FROM answers WHERE batch = ?", (job_id,))
    return {row["line"] for row in rows}


def results_of(db: sqlite3.Connection, /, job_id: str) -> Iterator[LineResult]:
    """All results of a job, in line order."""
    for row in db.execute("SELECT * FROM answers WHERE batch = ? ORDER BY line", (job_id,)):
        yield LineResult(row["batch"], row["line"], bool(row["is_good"]), row["row"])


def finish_job(
    db: sqlite3.Connection,
    /,
    job_id: str,
    status: Status,
    *,
    output: File | None,
    errors: File | None,
    failed: int,
) -> None:
    """Register the files of a job, set its last status, and delete its results.

    Args:
        output: None if no line succeeded.
        errors: None if no line failed.
        failed: lines in the error file.
    """
    for file in (output, errors):
        if file is not None:
            add_file(db, file)
    change_status(
        db,
        job_id,
        status,
        only_from=UNFINISHED,
        output_file_id=None if output is None else output.id,
        error_file_id=None if errors is None else errors.id,
        failed=failed,
    )
    db.execute("DELETE FROM answers WHERE batch = ?", (job_id,))
