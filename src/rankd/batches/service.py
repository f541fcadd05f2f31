"""Everything that a server with batch jobs has: directory, database and runner."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rankd.batches import queries
from rankd.batches.clock import DAY, ClockGuard
from rankd.batches.database import Database, open_database
from rankd.batches.runner import JobLimits, JobRunner
from rankd.config.settings import Settings
from rankd.dialects.asgi_client import AsgiClient
from rankd.errors import BadSettings, StorageDown, TooLarge

# Requests in one job, as in OpenAI's API; a longer file fails.
JOB_LINES = 50_000

# Requests of all jobs that run at a time.
CONCURRENCY = 32

# All stored files together take at most this many times the largest upload.
STORED_FILES = 50

# Seconds between two deletions of expired files and jobs.
_EXPIRY_INTERVAL = 600.0


@dataclass
class BatchService:
    """What the routes need.

    Attributes:
        folder: holds the bytes of files, named by their ids.
        endpoints: paths that a job may name.
        max_file_bytes: of one upload.
        max_stored_bytes: of all files together.
        retention_seconds: how long files and finished jobs are kept by default.
        clock: says when the machine's clock is believed.
    """

    database: Database
    runner: JobRunner
    folder: Path
    endpoints: frozenset[str]
    max_file_bytes: int
    max_stored_bytes: int
    retention_seconds: int
    clock: ClockGuard
    _stored: int = field(default=0, init=False)
    _arriving: int = field(default=0, init=False)

    @asynccontextmanager
    async def reservation(self) -> AsyncIterator[Callable[[int], None]]:
        """A function to call with the size of each block of an upload before it is written.

        The function raises `TooLarge` if all files, including uploads in progress, would
        exceed `max_stored_bytes`.
        """
        self._stored = await self.database.run(queries.stored_bytes)
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            reserved += size
            self._arriving += size
            if self._stored + self._arriving > self.max_stored_bytes:
                raise TooLarge(
                    f"with this file, all files together have more than "
                    f"{self.max_stored_bytes:,} bytes, the limit of this server: delete some",
                    param="file",
                )

        try:
            yield reserve
            self._stored += reserved
        finally:
            self._arriving -= reserved

    async def delete_bytes(self, file_ids: Iterable[str]) -> None:
        """Delete the bytes of files that are no longer in the database."""
        for file_id in file_ids:
            await asyncio.to_thread((self.folder / file_id).unlink, missing_ok=True)

    async def delete_expired(self) -> None:
        """Delete expired files and old jobs, unless the clock has just jumped."""
        if not self.clock.allows_deletion():
            return
        await self.database.run(queries.set_clock)
        before = int(time.time()) - self.retention_seconds
        await self.delete_bytes(await self.database.run(queries.delete_expired, before))

    async def delete_orphans(self) -> None:
        """Delete bytes without a file in the database: uploads cut off by a kill."""
        file_ids = await self.database.run(queries.file_ids)

        def delete() -> None:
            for path in self.folder.iterdir():
                if path.name not in file_ids and not path.is_dir():  # `lost+found`, for example.
                    path.unlink()

        await asyncio.to_thread(delete)

    async def delete_expired_forever(self) -> None:
        """Call `delete_expired` every ten minutes, also after a disk error."""
        while True:
            with suppress(StorageDown, OSError):
                await self.delete_expired()
            await asyncio.sleep(_EXPIRY_INTERVAL)


@asynccontextmanager
async def open_batches(
    settings: Settings,
    client: AsgiClient,
    endpoints: frozenset[str],
    on_stop: Callable[[Callable[[], object]], None],
) -> AsyncIterator[BatchService | None]:
    """Open the directory of --batch-dir and resume its jobs; None without that setting.

    Args:
        client: sends lines to the app.
        endpoints: paths that a job may name.
        on_stop: registers a function to call when the server begins to stop.

    Raises:
        BadSettings: the directory cannot be used, or another server uses it.
    """
    if settings.batch_dir is None:
        yield None
        return
    with _locked(settings.batch_dir):
        async with open_database(settings.batch_dir / "batches.db") as database:
            try:
                clock = ClockGuard(await database.run(queries.newest_time), wall=time.time)
                service = _service(settings, database, client, endpoints, clock)
                await service.delete_orphans()
            except (StorageDown, OSError) as error:
                raise BadSettings(f"cannot use --batch-dir {settings.batch_dir}: {error}") from None
            expiry = asyncio.create_task(service.delete_expired_forever())
            on_stop(service.runner.stop)
            try:
                await service.runner.resume()
                yield service
            finally:
                expiry.cancel()
                await asyncio.wait([expiry])
                await service.runner.close()


def _service(
    settings: Settings,
    database: Database,
    client: AsgiClient,
    endpoints: frozenset[str],
    clock: ClockGuard,
) -> BatchService:
    folder = database.path.parent / "files"
    limits = JobLimits(JOB_LINES, settings.max_body_bytes, CONCURRENCY)
    return BatchService(
        database,
        JobRunner(database, folder, client, limits),
        folder,
        endpoints,
        max_file_bytes=settings.batch_file_bytes,
        max_stored_bytes=STORED_FILES * settings.batch_file_bytes,
        retention_seconds=settings.batch_days * DAY,
        clock=clock,
    )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Create a directory if needed, for this user only, and keep other servers out of it."""
    try:
        for folder in (directory, directory / "files"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        # SQLite would create it readable for others.
        os.close(os.open(directory / "batches.db", os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise BadSettings(f"cannot use --batch-dir {directory}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadSettings(
                f"--batch-dir {directory} is used by another server; each server needs its own"
            ) from None
        yield
    finally:
        os.close(handle)
