"""The only place where scoring work waits: calls in, batches to the engine, logits out.

`fair_queue.py` decides which prompts are next. The scheduler hands batches of at most
`engine.info.batch_tokens` to the engine, at most `engine.slots.count` at a time, and keeps
deadlines and cancellations: what waits is dropped at once, a batch that is computed ends.

When the engine dies, the batches it had are scored again by the one that is started in its place.
One of their calls may have caused the death, and nothing says which. So each of these calls is
scored alone while everything else waits. A call that kills the engine when nothing else is
computed is refused; the others are answered.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

from rankd.context import REQUEST_ID
from rankd.engines.base import Engine, PromptsTooLarge
from rankd.errors import (
    DeadlineExceeded,
    EngineDied,
    EngineDown,
    EngineRestarting,
    PoisonRequest,
    TooLarge,
)
from rankd.ranking.fair_queue import Call, FairQueue
from rankd.telemetry import metrics
from rankd.types import Prompt

_log = logging.getLogger("rankd")

# Seconds for which a call that killed the engine is refused when it is sent again.
POISON_SECONDS = 300.0

# Receives the index of a prompt in its call, and its logit.
OnLogit = Callable[[int, float], None]


class _ScoringCall(Call):
    """A call with its answers.

    Attributes:
        logits: in the order of its prompts; None where not scored yet.
        request_id: of the request, for logs and errors.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        priority: int,
        path: Sequence[str],
        on_logit: OnLogit | None,
        on_start: Callable[[], None] | None,
    ) -> None:
        super().__init__(prompts, priority=priority, path=path)
        self.logits: list[float | None] = [None] * len(prompts)
        self.request_id = REQUEST_ID.get()
        self._on_logit = on_logit
        self._on_start = on_start
        self._unanswered = len(prompts)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Return when every prompt has its logit, or raise what the call failed with."""
        await self._done

    @property
    def ended(self) -> bool:
        return self._done.done()

    def start(self) -> None:
        """The engine begins to compute prompts of it; called for every batch."""
        if self._on_start is not None:
            self._on_start()

    def answer(self, index: int, logit: float) -> None:
        """Keep the logit of one prompt, unless the call has ended."""
        if self.ended:
            return
        self.logits[index] = logit
        self._unanswered -= 1
        if self._on_logit is not None:
            self._on_logit(index, logit)
        if not self._unanswered:
            self._done.set_result(None)

    def fail(self, problem: BaseException) -> None:
        if not self.ended:
            self._done.set_exception(problem)


@dataclass(eq=False, slots=True)
class _Batch:
    """Prompts that go to the engine together.

    Attributes:
        rows: call and index of each prompt.
        alone: nothing else may be computed at the same time; `rows` are of one call.
    """

    rows: list[tuple[_ScoringCall, int]]
    alone: bool = False
    started: float | None = None
    task: asyncio.Task[list[float]] | None = None

    @property
    def calls(self) -> list[_ScoringCall]:
        return list(dict.fromkeys(call for call, _ in self.rows))

    def drop_ended(self) -> None:
        self.rows = [(call, index) for call, index in self.rows if not call.ended]

    def by_call(self) -> list[_Batch]:
        """The same prompts as a batch for each call, to be scored alone."""
        rows: dict[_ScoringCall, list[tuple[_ScoringCall, int]]] = {}
        for call, index in self.rows:
            rows.setdefault(call, []).append((call, index))
        return [_Batch(one, alone=True) for one in rows.values()]


class Scheduler:
    """Scores calls on one engine, fairly among keys and users.

    Args:
        engine: is ready.
        patience: seconds that calls wait for an engine that is away.
    """

    def __init__(self, engine: Engine, *, patience: float = 30.0) -> None:
        self.engine = engine
        self._patience = patience
        self._queue = FairQueue(slice_tokens=engine.info.batch_tokens // 2)
        self._calls: set[_ScoringCall] = set()
        self._in_flight: list[_Batch] = []
        self._again: deque[_Batch] = deque()
        self._feeding = False
        self._poison: dict[int, float] = {}
        self._away_since: float | None = None
        self._waiting_for_engine: asyncio.Task[None] | None = None
        engine.slots.on_change(self._slots_changed)

    async def score(
        self,
        prompts: Sequence[Prompt],
        *,
        key: str = "",
        user: str = "",
        priority: int = 0,
        deadline: float | None = None,
        on_logit: OnLogit | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> list[float]:
        """Score N prompts of one request.

            logits = await scheduler.score(prompts, key="team-a", priority=0)

        Args:
            prompts: each at most `engine.info.max_tokens` long.
            key, user: who asks; keys share the engine equally, and users the part of their key.
            priority: lower is sooner; see `fair_queue` for how long a higher number waits.
            deadline: `time.monotonic()` after which the answer is of no use.
            on_logit: called with index and logit as each prompt is scored, at most once a prompt,
                and never after the call has ended.
            on_start: called when the engine begins with prompts of this call, perhaps repeatedly.

        Returns:
            N logits in nats, in the order of `prompts`. Cancelling abandons those that wait.

        Raises:
            DeadlineExceeded: carries the logits of the prompts that were scored in time.
            PoisonRequest: these prompts killed the engine when nothing else was computed.
            EngineDown: the engine is lost, or away for longer than `patience` seconds.
            TooLarge: a prompt does not fit in the device's memory.
        """
        if not prompts:
            return []
        self._refuse_known_poison(prompts)
        await self._refuse_if_away()
        call = _ScoringCall(
            prompts, priority=priority, path=(key, user), on_logit=on_logit, on_start=on_start
        )
        timeout = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._answered(call)
        except TimeoutError:
            raise DeadlineExceeded(call.logits) from None
        return cast(list[float], call.logits)

    async def check(self) -> None:
        """Raises as `Engine.check`."""
        await self.engine.check()

    def close(self) -> None:
        """Fail what waits and abandon what is computed."""
        for call in list(self._calls):
            call.fail(EngineDown("the server is stopping"))
        for batch in self._in_flight:
            if batch.task is not None:
                batch.task.cancel()
        if self._waiting_for_engine is not None:
            self._waiting_for_engine.cancel()

    async def _answered(self, call: _ScoringCall) -> None:
        self._calls.add(call)
        self._queue.add(call)
        self._feed_soon()
        try:
            await call.wait()
        except asyncio.CancelledError:
            # The client left or the deadline passed.
            metrics.ABANDONED_DOCUMENTS.inc(call.waiting)
            self._abandon_batches()
            raise
        finally:
            self._calls.discard(call)
            self._queue.remove(call)

    def _abandon_batches(self) -> None:
        """Cancel batches all of whose calls have ended; the engine may stop computing them."""
        for batch in self._in_flight:
            if batch.task is not None and all(call.ended for call in batch.calls):
                batch.task.cancel()
        # A batch to be scored alone may be gone, for which others wait.
        self._feed_soon()

    # Handing out

    def _feed_soon(self) -> None:
        """Feed once per turn of the loop, so that calls that arrive together share a batch."""
        if not self._feeding:
            self._feeding = True
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        while (batch := self._next_batch()) is not None:
            prompts = [call.prompts[index] for call, index in batch.rows]
            batch.task = asyncio.create_task(self.engine.score(prompts))
            batch.task.add_done_callback(partial(self._finished, batch))
            self._in_flight.append(batch)
            self._note_starts()

    def _next_batch(self) -> _Batch | None:
        """The next batch, if the engine should have it now."""
        slots, in_flight = self.engine.slots, len(self._in_flight)
        if in_flight >= slots.count or any(batch.alone for batch in self._in_flight):
            return None
        while self._again:
            if self._again[0].alone and in_flight:
                return None
            batch = self._again.popleft()
            batch.drop_ended()
            if batch.rows:
                return batch
        budget = self.engine.info.batch_tokens
        if in_flight >= slots.eager and self._queue.tokens < budget:
            return None
        rows = self._queue.next_batch(budget)
        return _Batch(cast(list[tuple[_ScoringCall, int]], rows)) if rows else None

    def _note_starts(self) -> None:
        """The engine computes its oldest batches; others lie ready."""
        for batch in self._in_flight[: max(self.engine.slots.eager, 1)]:
            if batch.started is None:
                batch.started = time.monotonic()
                for call in batch.calls:
                    call.start()

    def _finished(self, batch: _Batch, task: asyncio.Task[list[float]]) -> None:
        self._in_flight.remove(batch)
        self._note_starts()
        if task.cancelled():
            self._fail(batch, EngineDown("the batch was abandoned"))
        elif (problem := task.exception()) is None:
            self._deliver(batch, task.result())
        elif isinstance(problem, PromptsTooLarge):
            self._deliver(batch, problem.logits)
        elif isinstance(problem, EngineDied):
            self._suspect(batch)
        elif isinstance(problem, EngineRestarting) and not self.engine.slots.count:
            self._again.append(batch)
        else:
            self._isolate(batch, problem)
        self._feed()

    def _deliver(self, batch: _Batch, logits: Sequence[float | None]) -> None:
        _count(batch)
        for (call, index), logit in zip(batch.rows, logits, strict=True):
            if logit is None:
                call.fail(self._lacks_memory(call.prompts[index]))
            else:
                call.answer(index, logit)

    def _lacks_memory(self, prompt: Prompt) -> TooLarge:
        return TooLarge(
            f"a document of {len(prompt):,} tokens, template included, does not fit in the memory "
            f"that {self.engine.info.device} has left; send shorter documents",
            param="documents",
        )

    # Failures

    def _fail(self, batch: _Batch, problem: BaseException) -> None:
        calls = batch.calls
        for call in calls:
            # A copy for each: tracebacks of several requests must not mix.
            call.fail(problem if len(calls) == 1 else copy.copy(problem))

    def _isolate(self, batch: _Batch, problem: BaseException) -> None:
        """An error of one call's batch is that call's; of several calls each is scored alone."""
        calls = [call for call in batch.calls if not call.ended]
        if len(calls) > 1 and not isinstance(problem, EngineDown):
            self._again.extend(batch.by_call())
        else:
            self._fail(batch, problem)

    def _suspect(self, batch: _Batch) -> None:
        """The engine died while it had this batch."""
        if not batch.alone:
            self._again.extend(batch.by_call())
            return
        [call] = batch.calls
        self._poison[_fingerprint(call.prompts)] = time.monotonic() + POISON_SECONDS
        _log.error("request %s killed the engine twice and is refused", call.request_id)
        call.fail(_poison(call.request_id))

    def _refuse_known_poison(self, prompts: Sequence[Prompt]) -> None:
        """Clients repeat what failed; each repetition would kill the engine twice more."""
        now = time.monotonic()
        self._poison = {key: until for key, until in self._poison.items() if until > now}
        if self._poison and _fingerprint(prompts) in self._poison:
            raise _poison(REQUEST_ID.get())

    # An engine that is away

    def _slots_changed(self) -> None:
        if self._waiting_for_engine is not None:
            self._waiting_for_engine.cancel()
            self._waiting_for_engine = None
        if self.engine.slots.count:
            self._away_since = None
            self._feed_soon()
            return
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._waiting_for_engine = asyncio.create_task(self._wait_for_engine())

    async def _wait_for_engine(self) -> None:
        """Fail the calls that wait when the engine is lost, or away for too long."""
        while self._away_since is not None:
            try:
                await self._refuse_if_away()
            except EngineDown as problem:
                for call in list(self._calls):
                    call.fail(copy.copy(problem))
                return
            left = self._away_since + self._patience - time.monotonic()
            await asyncio.sleep(max(left, 0.0))

    async def _refuse_if_away(self) -> None:
        """Raises `EngineDown` when the engine is lost, or away for longer than `patience`."""
        if self._away_since is None:
            return
        try:
            await self.engine.check()
        except EngineRestarting as problem:
            if time.monotonic() < self._away_since + self._patience:
                return
            away = EngineRestarting(
                f"the engine has died and was not back within {self._patience:g} seconds"
            )
            away.retry_after = problem.retry_after
            raise away from None


@asynccontextmanager
async def open_scheduler(engine: Engine, *, patience: float) -> AsyncIterator[Scheduler]:
    """A scheduler whose calls end, with an error, before the engine is closed."""
    scheduler = Scheduler(engine, patience=patience)
    try:
        yield scheduler
    finally:
        scheduler.close()


def _poison(request_id: str) -> PoisonRequest:
    return PoisonRequest(
        f"request {request_id} ended the engine twice, the second time alone, and is refused"
    )


def _fingerprint(prompts: Sequence[Prompt]) -> int:
    return hash(tuple(prompts))


def _count(batch: _Batch) -> None:
    """As the engine computes it: a prefix once for all its prompts."""
    prompts = [call.prompts[index] for call, index in batch.rows]
    prefixes = {id(prompt.prefix): len(prompt.prefix) for prompt in prompts}
    metrics.BATCH_PAIRS.observe(len(prompts))
    metrics.BATCH_TOKENS.observe(
        sum(prefixes.values()) + sum(len(prompt.suffix) for prompt in prompts)
    )
    if batch.started is not None:
        metrics.BATCH_SECONDS.observe(time.monotonic() - batch.started)
