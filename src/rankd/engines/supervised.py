"""Restarts an engine that dies, up to a number of restarts in five minutes.

`SupervisedEngine.score` raises `EngineDied` for batches that were in flight; the scheduler scores
them again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from rankd.config.settings import Settings
from rankd.engines.base import Engine, EngineInfo, Slots
from rankd.errors import EngineDied, EngineDown, EngineRestarting
from rankd.telemetry import metrics
from rankd.types import AnswerTokenIds, Prompt

_log = logging.getLogger("rankd")

OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]

# Seconds for which a crash counts.
WINDOW = 300.0

# Seconds between two checks of the engine, also while it is idle.
_CHECK_EVERY = 0.5

# Seconds before a restart: 0 after the first crash, then doubled with each further one.
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0

# A restart may take this many times as long as the first start: the disk may be busy.
_START_FACTOR = 3


@dataclass(eq=False, slots=True)
class _EngineRun:
    """One engine from its start to its crash.

    Attributes:
        died: done when the engine has died.
        batches: the scope of each batch that it has.
    """

    engine: Engine
    died: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    batches: set[asyncio.Timeout] = field(default_factory=set)


class SupervisedEngine:
    """An `Engine` that is restarted when it dies. While it restarts, it has no slots.

    Args:
        first: an engine that is ready.
        restarts: restarts allowed within `WINDOW` seconds; 0: none.
        start_seconds: duration of the first start, for `Retry-After`.
    """

    def __init__(self, first: Engine, *, restarts: int, start_seconds: float) -> None:
        self.info: EngineInfo = first.info
        self.slots = Slots(0, eager=0)
        self._restarts = restarts
        self._start_seconds = start_seconds
        self._died_at = 0.0
        self._given_up: EngineDown | None = None
        self._crashes: deque[float] = deque()
        self._current: _EngineRun | None = None
        self._use(first)

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        run = await self._running()
        # Ends the batch when the engine has died and does not say so itself.
        scope = asyncio.timeout(None)
        run.batches.add(scope)
        try:
            async with scope:
                return await run.engine.score(batch)
        except TimeoutError:
            raise EngineDied("the engine died while it computed this batch") from None
        except EngineRestarting:
            raise
        except EngineDown as problem:
            self._mark_dead(run, problem)
            self._refuse_if_given_up()
            raise EngineDied(problem.message) from None
        finally:
            run.batches.discard(scope)

    async def check(self) -> None:
        """Raises `EngineRestarting` while the engine restarts, `EngineDown` if it stays down."""
        run = self._current
        if run is not None:
            try:
                await run.engine.check()
            except EngineRestarting:
                raise
            except EngineDown as problem:
                self._mark_dead(run, problem)
        self._refuse_if_given_up()
        if self._current is None:
            raise self._restarting_error()

    async def _running(self) -> _EngineRun:
        """The running engine, checked first, so that a batch is not blamed for an earlier crash.

        Raises:
            EngineRestarting: the engine restarts; nothing was computed.
            EngineDown: the engine is not restarted any more.
        """
        run = self._current
        if run is not None:
            try:
                await run.engine.check()
            except EngineRestarting:
                pass  # It may answer soon. If it does not, it is restarted.
            except EngineDown as problem:
                self._mark_dead(run, problem)
        self._refuse_if_given_up()
        if run is None or run is not self._current:
            raise self._restarting_error()
        return run

    def _use(self, engine: Engine) -> None:
        self._current = _EngineRun(engine)
        metrics.ENGINE_UP.set(1)
        engine.slots.on_change(partial(self._copy_slots, self._current))
        self._copy_slots(self._current)

    def _copy_slots(self, run: _EngineRun) -> None:
        if run is self._current:
            self.slots.set(run.engine.slots.count, run.engine.slots.eager)

    def _refuse_if_given_up(self) -> None:
        if self._given_up is not None:
            raise EngineDown(self._given_up.message)

    def _restarting_error(self) -> EngineRestarting:
        problem = EngineRestarting("the engine has died and is being started again")
        problem.retry_after = max(1, math.ceil(self._start_seconds))
        return problem

    def _mark_dead(self, run: _EngineRun, problem: EngineDown) -> None:
        """Note a crash, once per engine. Closing an engine does not count."""
        if run.died.done() or self._given_up is not None:
            return
        run.died.set_result(None)
        for scope in run.batches:
            with suppress(RuntimeError):  # The batch has ended at the same moment.
                scope.reschedule(asyncio.get_running_loop().time())
        self._current = None
        self._died_at = time.monotonic()
        metrics.ENGINE_UP.set(0)
        self._count_crash(problem.message)
        self.slots.set(0, 0)

    def _count_crash(self, reason: str) -> None:
        """Count a crash or a failed restart; give up when there were too many."""
        now = time.monotonic()
        self._crashes.append(now)
        while self._crashes[0] < now - WINDOW:
            self._crashes.popleft()
        if len(self._crashes) <= self._restarts:
            _log.warning(
                "the engine is restarted (restart %d of the %d allowed in %g minutes): %s",
                len(self._crashes),
                self._restarts,
                WINDOW / 60,
                reason,
            )
        elif self._restarts:
            count = f"the engine died {len(self._crashes)} times in {WINDOW / 60:g} minutes"
            self.give_up(f"{count}; last reason: {reason}")
        else:
            self.give_up(reason)

    def give_up(self, reason: str) -> None:
        """Never restart again: from now on `check` and `score` raise `EngineDown`."""
        self._given_up = self._given_up or EngineDown(reason)
        self._current = None
        metrics.ENGINE_UP.set(0)
        self.slots.set(0, 0)

    async def supervise(
        self, open_engine: OpenEngine, stack: AsyncExitStack, supervision: Supervision
    ) -> None:
        """Restart the engine whenever it dies, until it died too often.

        Args:
            stack: closes the current engine.
        """
        try:
            while self._current is not None:
                await self._wait_until_dead(self._current)
                await stack.aclose()
                while self._current is None and self._given_up is None:
                    await asyncio.sleep(self._delay())
                    await self._restart(open_engine, stack, supervision)
        finally:
            # After a bug too, no call may wait forever.
            self.give_up("the engine is no longer supervised")

    async def _wait_until_dead(self, run: _EngineRun) -> None:
        while not run.died.done():
            await asyncio.wait([run.died], timeout=_CHECK_EVERY)
            try:
                await self.check()
            except EngineDown:
                metrics.ENGINE_UP.set(0)
            else:
                metrics.ENGINE_UP.set(1)

    def _delay(self) -> float:
        """Seconds before a restart; random, so that several servers do not start at once."""
        repeated = len(self._crashes) - 2
        if repeated < 0:
            return 0.0
        # The exponent is limited because floats overflow.
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(repeated, 16))
        return longest * random.uniform(0.5, 1.0)

    def _refuse_other_arithmetic(self, engine: Engine) -> None:
        """Raises `EngineDown` if scores must be deterministic and may differ from the first's."""
        if self.info.deterministic and engine.info.arithmetic != self.info.arithmetic:
            raise EngineDown(
                f"the restarted engine computes with {engine.info.arithmetic}, the first one with "
                f"{self.info.arithmetic}: for deterministic scores, restart the server"
            )

    async def _restart(
        self, open_engine: OpenEngine, stack: AsyncExitStack, supervision: Supervision
    ) -> None:
        metrics.ENGINE_RESTARTS.inc()
        try:
            async with asyncio.timeout(supervision.start_limit):
                engine = await stack.enter_async_context(open_engine())
                # Some engines load and then die at the first batch.
                await engine.score([supervision.probe])
                self._refuse_other_arithmetic(engine)
        except Exception as problem:
            # Libraries raise anything at a start. It counts as a crash, and the last one's
            # message is what the operator sees when the restarts are used up.
            with suppress(Exception):
                await stack.aclose()
            self._count_crash(str(problem) or type(problem).__name__)
            return
        _log.warning(
            "the engine is back after %.1f seconds; the requests that it had are run again, "
            "one by one",
            time.monotonic() - self._died_at,
        )
        self._use(engine)


@dataclass(frozen=True, slots=True)
class Supervision:
    """Conditions for a successful restart.

    Attributes:
        probe: a prompt that the restarted engine must score before it takes calls.
        start_limit: maximum seconds of a restart.
    """

    probe: Prompt
    start_limit: float


@asynccontextmanager
async def open_supervised(
    open_engine: OpenEngine, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[SupervisedEngine]:
    """Start an engine, and restart it when it dies.

    Args:
        open_engine: starts one engine; called again for each restart.

    Raises:
        SetupError: the first start failed. It is not repeated; only restarts are.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_engine())
        seconds = time.monotonic() - began
        engine = SupervisedEngine(
            first,
            restarts=settings.engine_restarts,
            start_seconds=seconds,
        )
        supervision = Supervision(
            probe=Prompt((answers.yes,), (answers.yes if answers.no is None else answers.no,)),
            start_limit=max(settings.engine_stuck_seconds, _START_FACTOR * seconds),
        )
        supervising = asyncio.create_task(engine.supervise(open_engine, stack, supervision))
        try:
            yield engine
        finally:
            engine.give_up("the engine is closed")
            supervising.cancel()
            await asyncio.wait([supervising])
