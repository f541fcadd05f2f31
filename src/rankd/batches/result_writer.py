"""Stores results of lines: those that arrive together go into one transaction."""

from __future__ import annotations

import asyncio
import logging

from rankd.batches import queries
from rankd.batches.database import Database
from rankd.batches.records import LineResult
from rankd.errors import StorageDown

_log = logging.getLogger("rankd")

# Seconds until a failed transaction is tried again.
RETRY_SECONDS = 5.0


class ResultWriter:
    """Writes results in the order in which they arrive, one transaction at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[tuple[LineResult | None, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def store(self, result: LineResult) -> None:
        """Return once the result is on disk."""
        await self._enqueue(result)

    async def flush(self) -> None:
        """Wait until everything stored before this call is on disk.

        It does not wait for later results: other jobs add some all the time.
        """
        await self._enqueue(None)

    async def close(self) -> None:
        """Wait for the running transaction, at most `RETRY_SECONDS`; then give up."""
        if self._writing is not None:
            _, late = await asyncio.wait([self._writing], timeout=RETRY_SECONDS)
            for task in late:
                task.cancel()

    async def _enqueue(self, result: LineResult | None) -> None:
        stored = asyncio.get_running_loop().create_future()
        self._pending.append((result, stored))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                try:
                    results = [result for result, _ in batch if result is not None]
                    await self._database.run(queries.add_results, results)
                except StorageDown as error:
                    _log.error(
                        "cannot store results of batch jobs, next attempt in %g s: %s",
                        RETRY_SECONDS,
                        error.message,
                    )
                    self._pending = batch + self._pending
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                for _, stored in batch:
                    if not stored.done():
                        stored.set_result(None)
        finally:
            self._writing = None
