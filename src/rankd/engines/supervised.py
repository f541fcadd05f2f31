"""Any engine, started again when it dies; what it was computing is still answered.

A death often has a culprit among the calls that were in flight, but nothing says which.
So these are suspects: each is run once more, alone, while everyone else waits. A call
that kills the engine when nothing else runs is refused; the others are answered.
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

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID
from rankd.engines.base import Engine, EngineInfo
from rankd.errors import DeadlineExceeded, EngineDown, EngineRestarting, PoisonRequest
from rankd.telemetry import metrics
from rankd.types import AnswerTokenIds, Prompt

_log = logging.getLogger("rankd")

Opening = Callable[[], AbstractAsyncContextManager[Engine]]

# Deaths are counted, and poison is remembered, for so many seconds.
WINDOW = 300.0

# Seconds between two looks at an engine that nobody calls.
_LOOK_EVERY = 0.5

# Seconds before a restart: none after a first death, then doubled with each.
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0

# A start may take so many times as long as the first did: the disk may be busy now.
_START_FACTOR = 3


@dataclass(eq=False, slots=True)
class _Call:
    """One `score` call.

    Attributes:
        scope: ends the run that it is in, when the engine dies and does not say so.
        guilty: it was alone when the engine died.
    """

    prompts: Sequence[Prompt]
    request: str
    scope: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    suspect: bool = False


@dataclass(eq=False, slots=True)
class _EngineLifetime:
    """An engine from its start to its death, and the calls it has in hand."""

    engine: Engine
    calls: list[_Call] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class SupervisedEngine:
    """The contract of `Engine`, kept by one engine after the other.

    Args:
        first: an engine that is ready.
        restarts: deaths within `WINDOW` that are survived; 0 survives none.
        patience: seconds that a call waits for an engine that is away.
        start_seconds: how long the first start took.
    """

    def __init__(
        self, first: Engine, *, restarts: int, patience: float, start_seconds: float
    ) -> None:
        self.info: EngineInfo = first.info
        self._restarts = restarts
        self._patience = patience
        self._start_seconds = start_seconds
        self._life: _EngineLifetime | None = _EngineLifetime(first)
        self._away_since = 0.0
        self._lost: EngineDown | None = None
        self._deaths: deque[float] = deque()
        self._suspects: deque[_Call] = deque()
        self._poison: dict[int, float] = {}
        self._changed = asyncio.Event()
        metrics.ENGINE_UP.set(1)

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        self._refuse_known_poison(prompts)
        call = _Call(prompts, REQUEST_ID.get())
        try:
            while True:
                life = await self._turn(call, deadline)
                try:
                    async with asyncio.timeout(None) as call.scope:
                        return await life.engine.score(
                            prompts, priority=priority, deadline=deadline
                        )
                except EngineDown as problem:
                    self._mark_dead(life, problem)
                except TimeoutError:
                    pass  # Buried by someone else.
                finally:
                    life.calls.remove(call)
                self._refuse_guilty(call)
        finally:
            if call in self._suspects:
                self._suspects.remove(call)
                self._notify()

    async def check(self) -> None:
        """Raise `EngineAway` while the engine is started again, `EngineDown` when it is not."""
        life = self._life
        if life is not None:
            try:
                await life.engine.check()
            except EngineRestarting:
                raise
            except EngineDown as problem:
                self._mark_dead(life, problem)
        self._refuse_if_lost()
        if self._life is None:
            raise self._away("the engine has died and is being started again")

    async def _turn(self, call: _Call, deadline: float | None) -> _EngineLifetime:
        """Wait until the call may run, and note in whose hands it is.

        Raises:
            EngineDown: the engine stays away, or for longer than a call waits.
            DeadlineExceeded: the deadline passed meanwhile.
        """
        timeout = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    life = await self._gate(call)
                    await self._mark_dead_if_down(life)
                    if life is self._life and self._may_start(call):
                        life.calls.append(call)
                        return life
        except TimeoutError:
            raise DeadlineExceeded([None] * len(call.prompts)) from None

    async def _gate(self, call: _Call) -> _EngineLifetime:
        while True:
            self._refuse_if_lost()
            if self._life is not None and self._may_start(call):
                return self._life
            left = self._time_left()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _may_start(self, call: _Call) -> bool:
        return not self._suspects or self._suspects[0] is call

    def _time_left(self) -> float | None:
        """How long to wait for an engine that is away; for as long as it takes for one's turn."""
        if self._life is not None:
            return None
        left = self._away_since + self._patience - time.monotonic()
        if left <= 0:
            raise self._away(
                f"the engine has died and was not back within {self._patience:g} seconds"
            )
        return left

    async def _mark_dead_if_down(self, life: _EngineLifetime) -> None:
        """Look before a call begins: it must not be suspected of a death that was before it."""
        try:
            await life.engine.check()
        except EngineRestarting:
            pass  # It may answer yet, and what waits in it is answered when it does not.
        except EngineDown as problem:
            self._mark_dead(life, problem)

    def _suspect(self, call: _Call) -> None:
        """The engine died while it had this call."""
        call.suspect = call in self._suspects
        if not call.suspect:
            self._suspects.append(call)
        with suppress(RuntimeError):  # It has just ended by itself.
            call.scope.reschedule(asyncio.get_running_loop().time())

    def _refuse_guilty(self, call: _Call) -> None:
        """Raises `PoisonRequest` when nothing but this call can have ended the engine."""
        if not call.suspect:
            return
        self._poison[hash(tuple(call.prompts))] = time.monotonic() + WINDOW
        _log.error("request %s ended the engine twice and is refused", call.request)
        raise _poison(call.request)

    def _refuse_known_poison(self, prompts: Sequence[Prompt]) -> None:
        """Clients repeat what failed; each repetition would cost two more lives."""
        now = time.monotonic()
        self._poison = {key: until for key, until in self._poison.items() if until > now}
        if self._poison and hash(tuple(prompts)) in self._poison:
            raise _poison(REQUEST_ID.get())

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise EngineDown(self._lost.message)

    def _away(self, message: str) -> EngineRestarting:
        problem = EngineRestarting(message)
        problem.retry_after = max(1, math.ceil(self._start_seconds))
        return problem

    def _notify(self) -> None:
        """Let everyone who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _mark_dead(self, life: _EngineLifetime, problem: EngineDown) -> None:
        """Note a death, once for each life; to be closed is none."""
        if life.ended.is_set() or self._lost is not None:
            return
        life.ended.set()
        self._life = None
        self._away_since = time.monotonic()
        metrics.ENGINE_UP.set(0)
        for call in life.calls:
            self._suspect(call)
        self._count_death(problem.message)
        self._notify()

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
        """Answer everyone who waits, and everyone who will come, with the first reason."""
        self._lost = self._lost or EngineDown(reason)
        self._life = None
        metrics.ENGINE_UP.set(0)
        self._notify()

    async def keep(self, opening: Opening, stack: AsyncExitStack, supervision: Supervision) -> None:
        """Start the engine again whenever it dies, until there were too many deaths.

        Args:
            stack: holds the engine that is open.
        """
        try:
            while self._life is not None:
                await self._until_death(self._life)
                await stack.aclose()
                while self._life is None and self._lost is None:
                    await asyncio.sleep(self._delay())
                    await self._start(opening, stack, supervision)
        finally:
            # Only a bug comes here otherwise, and nobody shall wait for ever because of it.
            self.give_up("the engine is no longer supervised")

    async def _until_death(self, life: _EngineLifetime) -> None:
        while not life.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(life.ended.wait(), _LOOK_EVERY)
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
        self._life = _EngineLifetime(engine)
        metrics.ENGINE_UP.set(1)
        seconds = time.monotonic() - self._away_since
        _log.warning(
            "the engine is back after %.1f seconds; %d requests are run again, one by one",
            seconds,
            len(self._suspects),
        )
        self._notify()


def _poison(request: str) -> PoisonRequest:
    return PoisonRequest(
        f"request {request} ended the engine twice, the second time alone, and is refused"
    )


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
            patience=settings.engine_wait_seconds,
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
