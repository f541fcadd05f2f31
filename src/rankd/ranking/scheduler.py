"""The only queue for scoring work: takes calls, sends batches to the engine, returns logits.

`fair_queue.py` decides which prompts are next. The scheduler sends the engine batches of at most
`engine.info.batch_tokens` tokens, at most `engine.slots.count` at a time, and no more than it
computes in a tenth of a second at its measured speed: newcomers wait for what is in flight. When a
call is cancelled or its deadline passes, its waiting prompts are dropped at once; a batch that the
engine has is still computed, unless all of its calls have ended.

When the engine dies, the restarted engine scores the batches in flight again. One of their calls
may have caused the crash, and nothing tells which. So each of these calls is scored alone while
all others wait. A call that kills the engine while it is scored alone is refused; the others are
answered.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
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
)
from rankd.ranking.fair_queue import FairQueue
from rankd.ranking.scoring_calls import Batch, OnLogit, ScoringCall
from rankd.telemetry import metrics
from rankd.types import Prompt

_log = logging.getLogger("rankd")

# Seconds for which a call that killed the engine is refused when it is sent again.
POISON_SECONDS = 300.0

# Work in flight, in seconds of the engine's time, and the batches that each of its replicas has in
# any case: one is computed while the next is on its way.
_IN_FLIGHT_SECONDS = 0.1
_MIN_BATCHES = 2

# While many batches wait, those that take longer than this are made shorter.
_SHORT_BATCH_SECONDS = 0.02

# Weight of all earlier batches in the measured speed when another one has finished.
_DECAY = 0.9


class Speed:
    """Tokens per second of the engine while it has work; the last ten batches or so count.

    Attributes:
        tokens_per_second: 0 before the first batch has finished.
    """

    def __init__(self) -> None:
        self.tokens_per_second = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._last_finished = 0.0

    def add(self, tokens: int, *, sent: float) -> None:
        """Note that a batch has finished now.

        Args:
            sent: `time.monotonic()` when the engine got it. While it was behind another batch
                the time counts as that one's.
        """
        now = time.monotonic()
        self._tokens = self._tokens * _DECAY + tokens
        self._seconds = self._seconds * _DECAY + now - max(sent, self._last_finished)
        self._last_finished = now
        self.tokens_per_second = self._tokens / max(self._seconds, 1e-6)


class Scheduler:
    """Scores calls on one engine, fairly among keys and users.

    Args:
        engine: must be ready.
        patience: seconds that calls wait while the engine restarts.
    """

    def __init__(self, engine: Engine, *, patience: float = 30.0) -> None:
        self.engine = engine
        self._patience = patience
        self._queue = FairQueue(slice_tokens=engine.info.batch_tokens // 2)
        self._calls: set[ScoringCall] = set()
        self._in_flight: list[Batch] = []
        self._again: deque[Batch] = deque()
        self._feeding = False
        self._speed = Speed()
        self._poison: dict[int, float] = {}
        self._away_since: float | None = None
        self._waiting_for_engine: asyncio.Task[None] | None = None
        engine.slots.on_change(self._slots_changed)
        engine.slots.waiting_tokens = lambda: self._queue.tokens

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
            key, user: for fairness: keys share the engine equally, and the users of a key share
                the part of the key.
            priority: lower is sooner; `fair_queue` bounds how long a higher number waits.
            deadline: `time.monotonic()` at which the call ends with `DeadlineExceeded`.
            on_logit: called with index and logit when a prompt is scored, at most once per prompt,
                and never after the call has ended.
            on_start: called when the engine begins with a batch that has prompts of this call.

        Returns:
            N logits in nats, in the order of `prompts`. Cancelling drops the prompts that wait.

        Raises:
            DeadlineExceeded: carries the logits of the prompts that were scored in time.
            PoisonRequest: these prompts killed the engine while they were scored alone.
            EngineDown: the engine is not restarted any more.
            EngineRestarting: the engine was not back within `patience` seconds.
            TooLarge: a prompt does not fit in the device's memory.
        """
        if not prompts:
            return []
        if self._poison:
            self._refuse_known_poison(prompts)
        if self._away_since is not None:
            await self._refuse_if_away()
        call = ScoringCall(
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
        """Fail all calls and cancel the batches in flight."""
        for call in list(self._calls):
            call.fail(EngineDown("the server is stopping"))
        for batch in self._in_flight:
            if batch.task is not None:
                batch.task.cancel()
        if self._waiting_for_engine is not None:
            self._waiting_for_engine.cancel()

    async def _answered(self, call: ScoringCall) -> None:
        self._calls.add(call)
        self._queue.add(call)
        self._feed_soon()
        try:
            await call.done
        except asyncio.CancelledError:
            # The client disconnected or the deadline passed.
            metrics.ABANDONED_DOCUMENTS.inc(call.waiting)
            self._abandon_batches()
            raise
        finally:
            self._calls.discard(call)
            if call.waiting_tokens:
                self._queue.remove(call)

    def _abandon_batches(self) -> None:
        """Cancel each batch whose calls have all ended; the engine may stop computing it."""
        for batch in self._in_flight:
            if batch.task is not None and all(call.done.done() for call in batch.calls):
                batch.task.cancel()
        # Others may have waited for a batch that was to be scored alone.
        self._feed_soon()

    # Sending batches

    def _feed_soon(self) -> None:
        """Call `_feed` once per loop iteration: calls that arrive together share a batch."""
        if not self._feeding:
            self._feeding = True
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        while (batch := self._next_batch()) is not None:
            prompts = [call.prompts[index] for call, index in batch.rows]
            batch.sent = time.monotonic()
            # Log lines about a batch carry the ids of all its requests.
            context = copy_context()
            ids = dict.fromkeys([call.request_id for call, _ in batch.rows])
            context.run(REQUEST_ID.set, " ".join(ids))
            batch.task = asyncio.create_task(self.engine.score(prompts), context=context)
            batch.task.add_done_callback(partial(self._finished, batch))
            self._in_flight.append(batch)
            self._note_starts()

    def _next_batch(self) -> Batch | None:
        """The next batch, if there is one and the engine should get it now."""
        slots, in_flight = self.engine.slots, len(self._in_flight)
        budget = self.engine.info.batch_tokens
        batches_per_second = self._speed.tokens_per_second / budget
        useful = max(_MIN_BATCHES * slots.replicas, int(batches_per_second * _IN_FLIGHT_SECONDS))
        if in_flight >= min(slots.count, useful) or any(one.alone for one in self._in_flight):
            return None
        while self._again:
            if self._again[0].alone and in_flight:
                return None
            batch = self._again.popleft()
            batch.drop_ended()
            if batch.rows:
                return batch
        if not self._queue.tokens or (in_flight >= slots.eager and self._queue.tokens < budget):
            return None
        # Before the speed is known, the engine may be slow.
        is_slow = batches_per_second * _SHORT_BATCH_SECONDS < slots.replicas
        rows = self._queue.next_batch(budget, short=is_slow)
        return Batch(cast(list[tuple[ScoringCall, int]], rows)) if rows else None

    def _note_starts(self) -> None:
        """Mark the oldest batches as started; the engine queues the others."""
        for batch in self._in_flight[: max(self.engine.slots.eager, 1)]:
            if batch.started is None:
                batch.start()

    def _finished(self, batch: Batch, task: asyncio.Task[list[float]]) -> None:
        self._in_flight.remove(batch)
        self._note_starts()
        if task.cancelled():
            self._fail(batch, EngineDown("the batch was abandoned"))
        elif (problem := task.exception()) is None:
            self._feed()  # First: the engine must not wait while results are delivered.
            self._deliver(batch, task.result())
            return
        elif isinstance(problem, PromptsTooLarge):
            self._deliver(batch, problem.logits)
        elif isinstance(problem, EngineDied):
            self._suspect(batch)
        elif isinstance(problem, EngineRestarting) and not self.engine.slots.count:
            # Not computed; it waits for the engine with all others.
            self._again.append(batch)
        else:
            self._isolate(batch, problem)
        self._feed()

    def _deliver(self, batch: Batch, logits: Sequence[float | None]) -> None:
        self._speed.add(_count(batch), sent=batch.sent)
        batch.deliver(logits, self.engine.info.device)

    # Failures

    def _fail(self, batch: Batch, problem: BaseException) -> None:
        calls = batch.calls
        for call in calls:
            # One copy per call: tracebacks of several requests must not mix.
            call.fail(problem if len(calls) == 1 else copy.copy(problem))

    def _isolate(self, batch: Batch, problem: BaseException) -> None:
        """Fail the call of a batch of one call; score each call of a larger batch alone."""
        calls = [call for call in batch.calls if not call.done.done()]
        if len(calls) > 1 and not isinstance(problem, EngineDown):
            self._again.extend(batch.by_call())
        else:
            self._fail(batch, problem)

    def _suspect(self, batch: Batch) -> None:
        """The engine died while it had this batch."""
        if not batch.alone:
            self._again.extend(batch.by_call())
            return
        [call] = batch.calls
        self._poison[_fingerprint(call.prompts)] = time.monotonic() + POISON_SECONDS
        _log.error("request %s ended the engine twice and is refused", call.request_id)
        call.fail(_poison(call.request_id))

    def _refuse_known_poison(self, prompts: Sequence[Prompt]) -> None:
        """Clients repeat what failed; each repetition would kill the engine twice more."""
        now = time.monotonic()
        self._poison = {key: until for key, until in self._poison.items() if until > now}
        if self._poison and _fingerprint(prompts) in self._poison:
            raise _poison(REQUEST_ID.get())

    # While the engine restarts

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
        """Fail all calls when the engine stays down, or takes too long to restart."""
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
        """Raises `EngineDown` when the engine stays down, or has restarted for too long."""
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


def _count(batch: Batch) -> int:
    """Fill the metrics of a batch; returns its tokens, each prefix once, as it is computed."""
    prompts = [call.prompts[index] for call, index in batch.rows]
    prefixes = {id(prompt.prefix): len(prompt.prefix) for prompt in prompts}
    tokens = sum(prefixes.values()) + sum(len(prompt.suffix) for prompt in prompts)
    metrics.BATCH_PAIRS.observe(len(prompts))
    metrics.BATCH_TOKENS.observe(tokens)
    if batch.started is not None:
        metrics.BATCH_SECONDS.observe(time.monotonic() - batch.started)
    return tokens
