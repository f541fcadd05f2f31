"""What a server with batch jobs has more than others: a folder, a database and a runner."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rankd.batches import queries
from rankd.batches.asgi_client import AsgiClient
from rankd.batches.database import Database, open_database
from rankd.batches.runner import JobLimits, Runner
from rankd.config.settings import Settings
from rankd.errors import BadSettings, StorageDown, TooLarge

DAY = 86_400

# Requests in one job, as in OpenAI's API; a longer file fails.
JOB_LINES = 50_000

# Requests of all jobs that run at a time.
CONCURRENCY = 32

# All stored files together take at most this many times the largest upload.
STORED_FILES = 50

# Seconds between two looks for what has expired.
_SWEEP_EVERY = 600.0


@dataclass
class BatchService:
    """Everything that the routes need.

    Attributes:
        folder: where the bytes of files lie, by their ids.
        endpoints: paths that a job may name.
    """

    database: Database
    runner: Runner
    folder: Path
    endpoints: frozenset[str]
    file_bytes: int
    stored_bytes: int
    lasting_seconds: int
    _stored: int = field(default=0, init=False)
    _arriving: int = field(default=0, init=False)

    @asynccontextmanager
    async def reservation(self) -> AsyncIterator[Callable[[int], None]]:
        """What is to be told of every byte of an upload before it is on the disk.

        It raises `TooLarge` when all files together would be more than may be stored, those
        that are still arriving included.
        """
        self._stored = await self.database.do(queries.stored_bytes)
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            taken += size
            self._arriving += size
            if self._stored + self._arriving > self.stored_bytes:
                raise TooLarge(
                    f"all files of this server may have {self.stored_bytes:,} bytes, and with "
                    "this one they would have more: delete some",
                    param="file",
                )

        try:
            yield take
            self._stored += taken
        finally:
            self._arriving -= taken

    async def forget(self, names: Sequence[str]) -> None:
        """Delete the bytes of files that the database names no more."""
        for name in names:
            await asyncio.to_thread((self.folder / name).unlink, missing_ok=True)

    async def sweep(self) -> None:
        """Delete what has expired."""
        await self.forget(
            await self.database.do(queries.drop_expired, int(time.time()) - self.lasting_seconds)
        )

    async def sweep_away_strays(self) -> None:
        """Delete bytes that no file names: their server was killed while they came."""
        known = await self.database.do(queries.known_files)

        def delete() -> None:
            for path in self.folder.iterdir():
                if path.name not in known and not path.is_dir():  # Somebody's own folder stays.
                    path.unlink()

        await asyncio.to_thread(delete)

    async def keep_sweeping(self) -> None:
        while True:
            with suppress(StorageDown, OSError):  # The next look finds it, too.
                await self.sweep()
            await asyncio.sleep(_SWEEP_EVERY)


@asynccontextmanager
async def open_batches(
    settings: Settings,
    inside: AsgiClient,
    endpoints: frozenset[str],
    tell: Callable[[Callable[[], object]], None],
) -> AsyncIterator[BatchService | None]:
    """Open the directory that the settings name, and go on with the jobs in it; None without one.

    Args:
        inside: what answers the lines.
        tell: takes what is to be called when the server begins to stop.

    Raises:
        BadSettings: the directory cannot be used, or another server uses it.
    """
    if settings.batch_dir is None:
        yield None
        return
    with _held(settings.batch_dir):
        folder = settings.batch_dir / "files"
        async with open_database(settings.batch_dir / "batches.db") as database:
            limits = JobLimits(JOB_LINES, settings.max_body_bytes, CONCURRENCY)
            runner = Runner(database, folder, inside, limits)
            batches = BatchService(
                database,
                runner,
                folder,
                endpoints,
                settings.batch_file_bytes,
                STORED_FILES * settings.batch_file_bytes,
                settings.batch_days * DAY,
            )
            try:
                await batches.sweep_away_strays()
            except (StorageDown, OSError) as problem:
                raise BadSettings(
                    f"cannot use --batch-dir {settings.batch_dir}: {problem}"
                ) from None
            sweeping = asyncio.create_task(batches.keep_sweeping())
            tell(runner.stop)
            try:
                await runner.resume()
                yield batches
            finally:
                sweeping.cancel()
                await asyncio.wait([sweeping])
                await runner.close()


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other servers out of a directory; made when it is not there, for this user alone."""
    try:
        for folder in (directory, directory / "files"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        # So that SQLite finds it with the right mode.
        os.close(os.open(directory / "batches.db", os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as problem:
        raise BadSettings(f"cannot use --batch-dir {directory}: {problem.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadSettings(
                f"--batch-dir {directory} is used by another server; each needs one of its own"
            ) from None
        yield
    finally:
        os.close(handle)
