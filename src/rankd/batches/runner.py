"""Runs batch jobs line by line, at a lower priority than every other request.

Each job is a task. The jobs of one owner run one after the other, those of several owners
side by side; all share the slots. A line is done when its result is in the database. Lines
in flight when the server stops are run again by the next server.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rankd.batches import lines, output_files, queries, result_writer
from rankd.batches.database import Database
from rankd.batches.lines import JobLine
from rankd.batches.records import UNFINISHED, Job, LineResult, Status, new_id
from rankd.batches.result_writer import ResultWriter
from rankd.batches.weighted_semaphore import WeightedSemaphore
from rankd.context import BATCH, CALLER, REQUEST_ID
from rankd.dialects.asgi_client import AsgiClient, AsgiResponse
from rankd.errors import StorageDown
from rankd.telemetry import metrics

_log = logging.getLogger("rankd")

# Too many requests, or the engine is restarting: the line is sent again until its job ends.
_RETRIED = (429, 503)
_MIN_PAUSE, _MAX_PAUSE = 0.1, 5.0

# A line takes one slot, and one more for each of these bytes: bodies in flight are in memory.
_SLOT_BYTES = 256 * 1024

# Lines read from a file at a time.
_READ_AHEAD = 16

# The body of a line whose request raised an unexpected exception.
_INTERNAL_ERROR = (
    b'{"error":{"message":"an error inside rankd; it has been logged",'
    b'"type":"internal_error","param":null,"code":"internal_error"}}'
)


@dataclass(frozen=True)
class JobLimits:
    """Limits of batch jobs.

    Attributes:
        lines: in one input file.
        line_bytes: of one line's body.
        concurrency: lines in flight, of all jobs together.
    """

    lines: int
    line_bytes: int
    concurrency: int


class JobRunner:
    """Runs every unfinished job of the database.

    Args:
        folder: holds the bytes of all files.
        client: sends lines to the app.
    """

    def __init__(
        self, database: Database, folder: Path, client: AsgiClient, limits: JobLimits
    ) -> None:
        self._database = database
        self._folder = folder
        self._client = client
        self._limits = limits
        self._slots = WeightedSemaphore(limits.concurrency)
        self._results = ResultWriter(database)
        self._owner_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._windows: dict[str, asyncio.Timeout] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def resume(self) -> None:
        """Start every unfinished job of the database."""
        job_ids = await self._database.run(queries.unfinished_jobs)
        for job_id in job_ids:
            self.start(job_id)
        if job_ids:
            _log.info("resuming %d batch jobs", len(job_ids))

    def start(self, job_id: str) -> None:
        """Run a job in the background."""
        if self._stopping:
            return
        task = asyncio.create_task(self._run_until_done(job_id))
        self._tasks.add(task)
        metrics.BATCH_JOBS.set(len(self._tasks))
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.BATCH_JOBS.set(len(self._tasks))

    def cancel(self, job_id: str) -> None:
        """End a job whose status is cancelling; results stored so far are kept."""
        if (window := self._windows.get(job_id)) is not None:
            window.reschedule(asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Drop all lines in flight; the next server resumes the jobs."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Stop, and wait until all tasks have ended."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._results.close()

    async def _run_until_done(self, job_id: str) -> None:
        """Run a job, again after every error, such as a full disk."""
        while True:
            try:
                return await self._run(job_id)
            except Exception as error:
                reason = error if isinstance(error, StorageDown) else type(error).__name__
                pause = result_writer.RETRY_SECONDS
                _log.error(
                    "batch job %s cannot go on, next attempt in %g s: %s", job_id, pause, reason
                )
                await asyncio.sleep(pause)

    async def _run(self, job_id: str) -> None:
        job = await self._database.run(queries.get_job, job_id)
        if job is None or await self._fail_without_file(job):
            return
        if job.status == "validating":
            job = await self._check_file(job)
        if job is None or job.status not in UNFINISHED:
            return
        if job.status == "in_progress":
            await self._run_within_window(job)
        await self._finish(job_id)

    async def _fail_without_file(self, job: Job) -> bool:
        """Whether the input file is missing and needed; the job is `failed` then."""
        is_done = job.status != "validating" and _ending(job) == "completed"
        path = self._folder / job.input_file_id
        if is_done or await asyncio.to_thread(path.exists):
            return False
        message = "the input file is missing on this server's disk; upload it again"
        error = {"code": "missing_file", "line": None, "message": message, "param": None}
        await self._database.run(
            queries.change_status, job.id, "failed", only_from=UNFINISHED, errors=[error]
        )
        return True

    async def _check_file(self, job: Job) -> Job | None:
        """Check the whole file before any line is run; the job afterwards."""
        limits = self._limits
        summary = await asyncio.to_thread(
            lines.check_file,
            self._folder / job.input_file_id,
            job.endpoint,
            max_lines=limits.lines,
            max_bytes=limits.line_bytes,
        )
        if summary.errors:
            status: Status = "failed"
            columns: dict[str, Any] = {"errors": summary.errors}
        else:
            status, columns = "in_progress", {"total": summary.total}
        await self._database.run(
            queries.change_status, job.id, status, only_from=("validating",), **columns
        )
        return await self._database.run(queries.get_job, job.id)

    async def _run_within_window(self, job: Job) -> None:
        """Run lines until the completion window ends or the job is cancelled."""
        try:
            async with asyncio.timeout(job.expires_at - time.time()) as window:
                self._windows[job.id] = window
                # `cancel` found no window if it was called before the line above.
                if await self._is_cancelled(job.id):
                    return
                async with self._owner_locks[job.owner]:
                    await self._run_lines(job)
        except TimeoutError:
            if not window.expired():
                raise
        finally:
            self._windows.pop(job.id, None)

    async def _is_cancelled(self, job_id: str) -> bool:
        job = await self._database.run(queries.get_job, job_id)
        return job is None or job.status == "cancelling"

    async def _run_lines(self, job: Job) -> None:
        done = await self._database.run(queries.lines_with_results, job.id)
        path = self._folder / job.input_file_id
        remaining = lines.read_lines(path, job.endpoint, self._limits.line_bytes, done)
        async with asyncio.TaskGroup() as group:
            with closing(remaining):
                while chunk := await asyncio.to_thread(_next_lines, remaining):
                    for line in chunk:
                        taken = await self._slots.take(1 + len(line.body) // _SLOT_BYTES)
                        group.create_task(self._run_line(job, line, taken))

    async def _run_line(self, job: Job, line: JobLine, taken: int) -> None:
        try:
            request_id = new_id("req_")
            response = await self._send(job, line, request_id)
            row = lines.result_line(line.custom_id, request_id, response.status, response.body)
            succeeded = response.status == 200
            await self._results.store(LineResult(job.id, line.number, succeeded, row))
            metrics.BATCH_LINES.labels("completed" if succeeded else "failed").inc()
        finally:
            self._slots.give(taken)

    async def _send(self, job: Job, line: JobLine, request_id: str) -> AsgiResponse:
        """The response to a line, sent again while it is 429 or 503."""
        REQUEST_ID.set(request_id)
        pause = _MIN_PAUSE
        while True:
            try:
                response = await self._client.request(
                    "POST",
                    job.endpoint,
                    line.body,
                    {"content-type": "application/json"},
                    scope={BATCH: True, CALLER: job.owner},
                )
            except Exception as error:
                # Only this line fails. The message may contain a document, so it is not logged.
                _log.error(
                    "line %d of batch job %s failed: %s", line.number, job.id, type(error).__name__
                )
                return AsgiResponse(500, _INTERNAL_ERROR)
            if response.status not in _RETRIED:
                return response
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _MAX_PAUSE)

    async def _finish(self, job_id: str) -> None:
        """Write the output files, then register them and set the last status."""
        await self._results.flush()
        # From here on the job can no longer be cancelled.
        job = await self._database.run(
            queries.change_status, job_id, "finalizing", only_from=("in_progress",)
        ) or await self._database.run(queries.get_job, job_id)
        if job is None or job.status not in UNFINISHED:
            return
        ending = _ending(job)
        written = await asyncio.to_thread(
            output_files.write,
            self._database.path,
            self._folder,
            job,
            ending,
            self._limits.line_bytes,
        )
        await self._register(job_id, ending, written)
        _log.info(
            "batch job %s: %s, %d answers, %d errors",
            job_id,
            ending,
            job.completed,
            written.failed,
        )

    async def _register(
        self, job_id: str, ending: Status, written: output_files.OutputFiles
    ) -> None:
        try:
            await self._database.run(
                queries.finish_job,
                job_id,
                ending,
                output=written.output,
                errors=written.errors,
                failed=written.failed,
            )
        except StorageDown:
            # The next attempt writes new files.
            files = written.output, written.errors
            await asyncio.to_thread(output_files.delete, self._folder, files)
            raise


def _ending(job: Job) -> Status:
    """The last status of a job, from its row alone: the server may have been killed since."""
    if job.status == "cancelling":
        return "cancelled"
    return "completed" if job.completed + job.failed == job.total else "expired"


def _next_lines(remaining: Iterator[JobLine]) -> list[JobLine]:
    return list(islice(remaining, _READ_AHEAD))
