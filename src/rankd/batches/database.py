"""One SQLite file and the one thread that writes it."""

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

# Counted up when the tables change.
VERSION = 1

# The write-ahead log survives `kill -9`; FULL, that what was said to be kept survives a power
# cut, too. What is deleted is overwritten, because it may quote a document.
_PRAGMAS = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
"""

# What no disk can do wrong.
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


class Database:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "batches")
        self._connection: sqlite3.Connection | None = None

    async def do(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run it in the thread, as one transaction.

        Raises:
            StorageDown: the disk does not take it, or has lost some of it; nothing was done.
        """

        def call() -> T:
            connection = self._connection
            assert connection is not None
            try:
                # Commits, or rolls back.
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    return work(connection, *args, **kwargs)
            except sqlite3.DatabaseError as problem:
                if isinstance(problem, _BUGS):
                    raise
                raise StorageDown(f"the database of batch jobs: {problem}") from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def open(self) -> None:
        """In the thread.

        Raises:
            BadSettings: it is no such database, or of a later rankd.
        """
        try:
            self._connection = connect(self.path)
            self._connection.executescript(_PRAGMAS)
            [version] = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.executescript(
                    f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
                )
        except sqlite3.Error as problem:
            raise BadSettings(f"cannot use {self.path}: {problem}") from None
        if version > VERSION:
            raise BadSettings(f"{self.path} was written by a later rankd")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def run(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def end(self) -> None:
        self._thread.shutdown()


def connect(path: Path) -> sqlite3.Connection:
    """A connection without transactions of its own making."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection


@asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    try:
        await database.run(database.open)
        yield database
    finally:
        await database.run(database.close)
        database.end()
