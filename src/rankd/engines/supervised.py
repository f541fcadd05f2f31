"""Any engine, started again when it dies, until it died too often.

What was computed when it died is the scheduler's business: `score` raises `EngineDied`.
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

Opening = Callable[[], AbstractAsyncContextManager[Engine]]

# Deaths are counted for so many seconds.
WINDOW = 300.0

# Seconds between two looks at an engine that nobody calls.
_LOOK_EVERY = 0.5

# Seconds before a restart: none after a first death, then doubled with each.
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0

# A start may take so many times as long as the first did: the disk may be busy now.
_START_FACTOR = 3


@dataclass(eq=False, slots=True)
class _EngineLifetime:
    """One engine from its start to its death."""

    engine: Engine
    ended: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class SupervisedEngine:
    """An `Engine` that is started again when it dies. It has no slots meanwhile.

    Args:
        first: an engine that is ready.
        restarts: deaths within `WINDOW` seconds after which it is started again; 0: never.
        start_seconds: how long the first start took.
    """

    def __init__(self, first: Engine, *, restarts: int, start_seconds: float) -> None:
        self.info: EngineInfo = first.info
        self.slots = Slots(0, eager=0)
        self._restarts = restarts
        self._start_seconds = start_seconds
        self._dead_since = 0.0
        self._lost: EngineDown | None = None
        self._deaths: deque[float] = deque()
        self._current: _EngineLifetime | None = None
        self._take(first)

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        life = await self._alive()
        scoring = asyncio.ensure_future(life.engine.score(batch))
        try:
            await asyncio.wait((scoring, life.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not scoring.done():
                scoring.cancel()
                # An engine that still computes an abandoned batch has no room for another one.
                await asyncio.wait((scoring, life.ended), return_when=asyncio.FIRST_COMPLETED)
        if not scoring.done() or scoring.cancelled():
            raise EngineDied("the engine died while it computed this batch")
        try:
            return scoring.result()
        except EngineRestarting:
            raise
        except EngineDown as problem:
            self._mark_dead(life, problem)
            self._refuse_if_lost()
            raise EngineDied(problem.message) from None

    async def check(self) -> None:
        """Raises `EngineRestarting` while the engine is away, `EngineDown` when it stays away."""
        life = self._current
        if life is not None:
            try:
                await life.engine.check()
            except EngineRestarting:
                raise
            except EngineDown as problem:
                self._mark_dead(life, problem)
        self._refuse_if_lost()
        if self._current is None:
            raise self._away()

    async def _alive(self) -> _EngineLifetime:
        """The engine that runs. Looks first: a batch must not be suspected of an earlier death.

        Raises:
            EngineRestarting: the engine is away; nothing was computed.
            EngineDown: it stays away.
        """
        life = self._current
        if life is not None:
            try:
                await life.engine.check()
            except EngineRestarting:
                pass  # It may answer yet. When it does not, it is replaced.
            except EngineDown as problem:
                self._mark_dead(life, problem)
        self._refuse_if_lost()
        if life is None or life is not self._current:
            raise self._away()
        return life

    def _take(self, engine: Engine) -> None:
        self._current = _EngineLifetime(engine)
        metrics.ENGINE_UP.set(1)
        engine.slots.on_change(partial(self._copy_slots, self._current))
        self._copy_slots(self._current)

    def _copy_slots(self, life: _EngineLifetime) -> None:
        if life is self._current:
            self.slots.set(life.engine.slots.count, life.engine.slots.eager)

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise EngineDown(self._lost.message)

    def _away(self) -> EngineRestarting:
        problem = EngineRestarting("the engine has died and is being started again")
        problem.retry_after = max(1, math.ceil(self._start_seconds))
        return problem

    def _mark_dead(self, life: _EngineLifetime, problem: EngineDown) -> None:
        """Note a death, once per engine. An engine that is closed has not died."""
        if life.ended.done() or self._lost is not None:
            return
        life.ended.set_result(None)
        self._current = None
        self._dead_since = time.monotonic()
        metrics.ENGINE_UP.set(0)
        self._count_death(problem.message)
        self.slots.set(0, 0)

    def _count_death(self, reason: str) -> None:
        """Give up when there were too many."""
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - WINDOW:
            self._deaths.popleft()
        if len(self._deaths) <= self._restarts:
            _log.warning(
                "the engine is started again (death %d of the %d survived in %g minutes): %s",
                len(self._deaths),
                self._restarts,
                WINDOW / 60,
                reason,
            )
        elif self._restarts:
            often = f"the engine died {len(self._deaths)} times in {WINDOW / 60:g} minutes"
            self.give_up(f"{often}, at last because {reason}")
        else:
            self.give_up(reason)

    def give_up(self, reason: str) -> None:
        """Start it no more: from now on `check` and `score` raise `EngineDown`."""
        self._lost = self._lost or EngineDown(reason)
        self._current = None
        metrics.ENGINE_UP.set(0)
        self.slots.set(0, 0)

    async def keep(self, opening: Opening, stack: AsyncExitStack, supervision: Supervision) -> None:
        """Start the engine again whenever it dies, until there were too many deaths.

        Args:
            stack: holds the engine that is open.
        """
        try:
            while self._current is not None:
                await self._until_death(self._current)
                await stack.aclose()
                while self._current is None and self._lost is None:
                    await asyncio.sleep(self._delay())
                    await self._start(opening, stack, supervision)
        finally:
            # Only a bug comes here otherwise, and nobody shall wait for ever because of it.
            self.give_up("the engine is no longer supervised")

    async def _until_death(self, life: _EngineLifetime) -> None:
        while not life.ended.done():
            await asyncio.wait([life.ended], timeout=_LOOK_EVERY)
            try:
                await self.check()
            except EngineDown:
                metrics.ENGINE_UP.set(0)
            else:
                metrics.ENGINE_UP.set(1)

    def _delay(self) -> float:
        """Seconds to wait; by chance, so that servers that died together do not start together."""
        repeated = len(self._deaths) - 2
        if repeated < 0:
            return 0.0
        # The exponent is bounded because a float is.
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(repeated, 16))
        return longest * random.uniform(0.5, 1.0)

    def _refuse_other_bits(self, engine: Engine) -> None:
        """Raises `EngineDown` when its scores may differ from the first one's, and must not."""
        if self.info.deterministic and engine.info.arithmetic != self.info.arithmetic:
            raise EngineDown(
                f"the engine would compute by {engine.info.arithmetic}, and began by "
                f"{self.info.arithmetic}: deterministic scores need a server that starts anew"
            )

    async def _start(
        self, opening: Opening, stack: AsyncExitStack, supervision: Supervision
    ) -> None:
        metrics.ENGINE_RESTARTS.inc()
        try:
            async with asyncio.timeout(supervision.start_limit):
                engine = await stack.enter_async_context(opening())
                # It answers: a model that loads and then dies is no engine.
                await engine.score([supervision.probe])
                self._refuse_other_bits(engine)
        except Exception as problem:
            # Whatever a library raises when it starts: it is a death like any other, and
            # at the end of all restarts its sentence is what the operator sees.
            with suppress(Exception):
                await stack.aclose()
            self._count_death(str(problem) or type(problem).__name__)
            return
        _log.warning(
            "the engine is back after %.1f seconds; the requests that it had are run again, "
            "one by one",
            time.monotonic() - self._dead_since,
        )
        self._take(engine)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a restart is judged.

    Attributes:
        probe: what a restarted engine must score before it takes calls.
        start_limit: seconds that a start may take.
    """

    probe: Prompt
    start_limit: float


@asynccontextmanager
async def open_supervised(
    opening: Opening, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[SupervisedEngine]:
    """Open an engine, and open it again when it dies.

    Args:
        opening: opens one; called again for each restart.

    Raises:
        SetupError: the first start failed; only later ones are tried again.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opening())
        seconds = time.monotonic() - began
        engine = SupervisedEngine(
            first,
            restarts=settings.engine_restarts,
            start_seconds=seconds,
        )
        supervision = Supervision(
            probe=Prompt((answers.yes,), (answers.no,)),
            start_limit=max(settings.engine_stuck_seconds, _START_FACTOR * seconds),
        )
        keeping = asyncio.create_task(engine.keep(opening, stack, supervision))
        try:
            yield engine
        finally:
            engine.give_up("the engine is closed")
            keeping.cancel()
            await asyncio.wait([keeping])
