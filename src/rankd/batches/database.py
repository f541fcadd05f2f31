"""The SQLite database of batch jobs. One thread runs every transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from rankd.errors import BadSettings, StorageDown

P = ParamSpec("P")
T = TypeVar("T")

# Increase when the tables change.
VERSION = 1

# WAL: a committed transaction survives `kill -9`. FULL: it survives a power cut too.
# secure_delete overwrites deleted rows, because they may contain document texts.
_PRAGMAS = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
"""

# Errors that a disk cannot cause: bugs in rankd.
_BUGS = (sqlite3.IntegrityError, sqlite3.ProgrammingError)
_TABLES = """
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    output_seconds INTEGER NOT NULL,
    metadata TEXT,
    status TEXT NOT NULL,
    total INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    output_file_id TEXT,
    error_file_id TEXT,
    stamps TEXT NOT NULL,
    errors TEXT
);
CREATE TABLE answers (
    batch TEXT NOT NULL,
    line INTEGER NOT NULL,
    is_good INTEGER NOT NULL,
    row BLOB NOT NULL,
    PRIMARY KEY (batch, line)
);
CREATE INDEX batches_by_owner ON batches (owner, status);
"""

# When the server last knew the time, in seconds since the epoch; one row at most.
_CLOCK = "CREATE TABLE IF NOT EXISTS clock (seen INTEGER NOT NULL);"


class Database:
    """Runs functions of `queries` in one thread, each as one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "batches")
        self._connection: sqlite3.Connection | None = None

    async def run(
        self,
        query: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run one transaction; roll it back if `query` raises.

        Example:
            `job = await database.run(queries.get_job, job_id, owner)`

        Raises:
            StorageDown: the disk is full, or the database is damaged; nothing was changed.
        """

        def call() -> T:
            connection = self._connection
            assert connection is not None
            try:
                # Commits, or rolls back.
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    return query(connection, *args, **kwargs)
            except sqlite3.DatabaseError as error:
                if isinstance(error, _BUGS):
                    raise
                raise StorageDown(f"the database of batch jobs: {error}") from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def open(self) -> None:
        """Open the file; create the tables if there are none.

        Raises:
            BadSettings: the file is no database of batch jobs, a newer rankd wrote it, or it is
                new although there are files that only a database can name.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        if self._connection is not None:
            connection = self._connection
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        self._thread.shutdown()

    def _open(self) -> None:
        try:
            self._connection = connect(self.path)
            self._connection.executescript(_PRAGMAS)
            [version] = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                _refuse_files_without_database(self.path)
                self._connection.executescript(
                    f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
                )
            self._connection.executescript(_CLOCK)
        except sqlite3.Error as error:
            raise BadSettings(f"cannot use {self.path}: {error}") from None
        if version > VERSION:
            raise BadSettings(
                f"{self.path} was written by a newer rankd (schema {version}, this one reads up "
                f"to {VERSION}); upgrade rankd or use another --batch-dir"
            )


def _refuse_files_without_database(path: Path) -> None:
    """A lost database must not look like an empty one, whose unknown files are deleted."""
    folder = path.parent / "files"
    entries = folder.iterdir() if folder.is_dir() else ()
    files = [entry for entry in entries if not entry.is_dir() and entry.suffix != ".part"]
    if files:
        raise BadSettings(
            f"{path} is new or empty, but {folder} has {len(files):,} files of batch jobs: restore "
            f"the database from a backup, or move the files away to start without them"
        )


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; its caller begins and ends transactions."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection


@asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    try:
        await database.open()
        yield database
    finally:
        await database.close()
