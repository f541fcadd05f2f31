"""Runs the jobs: line by line, behind everyone who waits for an answer.

Each job is a task. The jobs of one caller run one after the other, those of several callers
side by side, and all of them share the slots. A line is done when its answer is in the
database; what was in flight when the server ended is asked again by the next one.
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

from rankd.batches import lines, queries, results
from rankd.batches.asgi_client import AsgiClient, AsgiResponse
from rankd.batches.database import Database
from rankd.batches.lines import Line
from rankd.batches.records import UNFINISHED, Job, LineResult, Status, new_id
from rankd.batches.slots import Slots
from rankd.errors import StorageDown
from rankd.telemetry import metrics

_log = logging.getLogger("rankd")

# What says "not now": too much waits, or the engine is away. A line waits as long as its job.
_NOT_NOW = (429, 503)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

# Bytes of a body above which a line takes more than one slot: bodies in flight are in memory.
_SLOT_BYTES = 256 * 1024

# Lines that are read at a time.
_READ_AHEAD = 16

# What a client is told of a bug; the log knows more.
_BUG = (
    b'{"error":{"message":"an error inside rankd; it has been logged",'
    b'"type":"internal_error","param":null,"code":"internal_error"}}'
)


@dataclass(frozen=True)
class JobLimits:
    """What one job may be.

    Attributes:
        lines: in one file.
        line_bytes: of the body of one line.
        concurrency: lines in flight, of all jobs.
    """

    lines: int
    line_bytes: int
    concurrency: int


class Runner:
    def __init__(
        self, database: Database, folder: Path, inside: AsgiClient, limits: JobLimits
    ) -> None:
        self._database = database
        self._folder = folder
        self._inside = inside
        self._limits = limits
        self._slots = Slots(limits.concurrency)
        self._keeper = _ResultWriter(database)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._windows: dict[str, asyncio.Timeout] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def resume(self) -> None:
        """Go on with everything that is not finished."""
        names = await self._database.do(queries.unfinished)
        for name in names:
            self.start(name)
        if names:
            _log.info("going on with %d batch jobs", len(names))

    def start(self, name: str) -> None:
        """Run a job, sooner or later."""
        if self._stopping:
            return
        task = asyncio.create_task(self._survive(name))
        self._tasks.add(task)
        metrics.BATCH_JOBS.set(len(self._tasks))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.BATCH_JOBS.set(len(self._tasks))

    def cancel(self, name: str) -> None:
        """End a job that was noted as cancelling; what is done of it stays."""
        if (window := self._windows.get(name)) is not None:
            window.reschedule(asyncio.get_running_loop().time())

    def stop(self) -> None:
        """End everything as it is; the next server goes on with it."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._keeper.close()

    async def _survive(self, name: str) -> None:
        """A job ends in one of the ways it may, or goes on."""
        while True:
            try:
                return await self._run(name)
            except Exception as problem:
                # The disk is full, say. Whoever makes room need not start the server again.
                said = problem if isinstance(problem, StorageDown) else type(problem).__name__
                _log.error("batch job %s has to wait: %s", name, said)
                await asyncio.sleep(_LONGEST_PAUSE)

    async def _run(self, name: str) -> None:
        batch = await self._database.do(queries.batch, name)
        if batch is None or await self._lacks_file(batch):
            return
        if batch.status == "validating":
            batch = await self._examine(batch)
        if batch is None or batch.status not in UNFINISHED:
            return
        if batch.status == "in_progress":
            await self._within_window(batch)
        await self._finish(name)

    async def _lacks_file(self, batch: Job) -> bool:
        """Whether what is to be run was lost, as by half a backup; the job has failed then."""
        done = batch.status != "validating" and _ending(batch) == "completed"
        path = self._folder / batch.input_file_id
        if done or await asyncio.to_thread(path.exists):
            return False
        message = "the input file is no longer on this server's disk"
        error = {"code": "missing_file", "line": None, "message": message, "param": None}
        await self._database.do(queries.move, batch.id, "failed", out_of=UNFINISHED, errors=[error])
        return True

    async def _examine(self, batch: Job) -> Job | None:
        """Judge the file before any of it is run; the job as it is then."""
        limits = self._limits
        found = await asyncio.to_thread(
            lines.examine,
            self._folder / batch.input_file_id,
            batch.endpoint,
            most_lines=limits.lines,
            most_bytes=limits.line_bytes,
        )
        to: Status = "failed" if found.errors else "in_progress"
        errors = found.errors or None
        changes = {"total": found.total} if errors is None else {"errors": errors}
        await self._database.do(queries.move, batch.id, to, out_of=("validating",), **changes)
        return await self._database.do(queries.batch, batch.id)

    async def _within_window(self, batch: Job) -> None:
        """Run what can be run before the time is over, or the job is cancelled."""
        try:
            async with asyncio.timeout(batch.expires_at - time.time()) as window:
                self._windows[batch.id] = window
                if await self._is_cancelled(batch.id):
                    return  # Since the last look, so that nobody found the window.
                async with self._turns[batch.owner]:
                    await self._run_lines(batch)
        except TimeoutError:
            if not window.expired():
                raise
        finally:
            self._windows.pop(batch.id, None)

    async def _is_cancelled(self, name: str) -> bool:
        batch = await self._database.do(queries.batch, name)
        return batch is None or batch.status == "cancelling"

    async def _run_lines(self, batch: Job) -> None:
        done = await self._database.do(queries.answered, batch.id)
        path = self._folder / batch.input_file_id
        waiting = lines.requests(path, batch.endpoint, self._limits.line_bytes, done)
        async with asyncio.TaskGroup() as group:
            with closing(waiting):
                while some := await asyncio.to_thread(_some, waiting):
                    for line in some:
                        taken = await self._slots.take(1 + len(line.body) // _SLOT_BYTES)
                        group.create_task(self._answer(batch, line, taken))

    async def _answer(self, batch: Job, line: Line, taken: int) -> None:
        try:
            request_id = new_id("req_")
            reply = await self._ask(batch, line, request_id)
            row = lines.answered(line.custom_id, request_id, reply.status, reply.body)
            is_good = reply.status == 200
            await self._keeper.keep(LineResult(batch.id, line.number, is_good, row))
            metrics.BATCH_LINES.labels("completed" if is_good else "failed").inc()
        finally:
            self._slots.give(taken)

    async def _ask(self, batch: Job, line: Line, request_id: str) -> AsgiResponse:
        """The app's answer; one that says "not now" is asked again until it says something else."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                reply = await self._inside.post(
                    batch.endpoint, line.body, caller=batch.owner, request_id=request_id
                )
            except Exception as problem:
                # One line's bug is no other's; its message may quote a document.
                _log.error(
                    "line %d of batch job %s failed: %s",
                    line.number,
                    batch.id,
                    type(problem).__name__,
                )
                return AsgiResponse(500, _BUG)
            if reply.status not in _NOT_NOW:
                return reply
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _finish(self, name: str) -> None:
        """Write the files, and only then say that they are there."""
        await self._keeper.settle()
        # From here on it is too late to cancel it.
        batch = await self._database.do(
            queries.move, name, "finalizing", out_of=("in_progress",)
        ) or await self._database.do(queries.batch, name)
        if batch is None or batch.status not in UNFINISHED:
            return
        ending = _ending(batch)
        written = await asyncio.to_thread(
            results.write,
            self._database.path,
            self._folder,
            batch,
            ending,
            self._limits.line_bytes,
        )
        files = written.output, written.errors
        try:
            await self._database.do(queries.finish, name, ending, files, written.failed)
        except StorageDown:
            # Nothing names them, and the next attempt writes them anew.
            await asyncio.to_thread(results.unwrite, self._folder, files)
            raise
        _log.info(
            "batch job %s: %s, %d answers, %d errors",
            name,
            ending,
            batch.completed,
            written.failed,
        )


def _ending(batch: Job) -> Status:
    """What its state says, and no memory of how it came there: that may have been before a kill."""
    if batch.status == "cancelling":
        return "cancelled"
    return "completed" if batch.completed + batch.failed == batch.total else "expired"


def _some(waiting: Iterator[Line]) -> list[Line]:
    return list(islice(waiting, _READ_AHEAD))


class _ResultWriter:
    """Writes answers as they come, those that come together in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[LineResult | None, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, answer: LineResult) -> None:
        """Return when it is safe on the disk."""
        await self._kept(answer)

    async def settle(self) -> None:
        """Wait until what is on its way is safe: of who was cancelled, too.

        Not until nothing is: of other jobs there is always something.
        """
        await self._kept(None)

    async def close(self) -> None:
        """As `settle`, but of what the disk does not take now nothing is kept."""
        if self._writing is not None:
            _, late = await asyncio.wait([self._writing], timeout=_LONGEST_PAUSE)
            for task in late:
                task.cancel()

    async def _kept(self, answer: LineResult | None) -> None:
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await kept

    async def _write(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                try:
                    answers = [answer for answer, _ in taken if answer is not None]
                    await self._database.do(queries.keep, answers)
                except StorageDown as problem:
                    _log.error("batch jobs have to wait: %s", problem.message)
                    self._waiting = taken + self._waiting
                    await asyncio.sleep(_LONGEST_PAUSE)
                    continue
                for _, kept in taken:
                    if not kept.done():
                        kept.set_result(None)
        finally:
            self._writing = None
