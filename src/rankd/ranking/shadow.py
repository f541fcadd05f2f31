"""Shadow scoring: a share of requests is scored a second time, in the background, and compared.

Answers never wait for it: a request is offered after it was scored, its second scoring has the
lowest priority of the scheduler, and what cannot be done soon is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from rankd.config.experiments import Shadow
from rankd.config.settings import Settings
from rankd.config.tables import DEFAULT
from rankd.ranking.agreement import Agreement, agreement
from rankd.ranking.circuit_breaker import CircuitBreaker
from rankd.ranking.profiles import Profile, Profiles
from rankd.ranking.ranker import Ranker
from rankd.ranking.shadow_log import ComparisonLog, comparison_line, open_log
from rankd.ranking.shadow_scorers import ShadowScorer, open_scorer
from rankd.telemetry import metrics
from rankd.types import RankRequest, RankResult, ScoredDocument

# Of the texts that wait for a second scoring, over all of one shadow's requests.
_MAX_PENDING_CHARACTERS = 32_000_000


class ShadowTraffic:
    """One `[[shadow]]` table at work.

    Args:
        table: its settings.
        scorer: scores a second time.
        log: where comparisons are written; None: nowhere.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        table: Shadow,
        scorer: ShadowScorer,
        log: ComparisonLog | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._table = table
        self._score = scorer
        self._log = log
        self._chance = chance
        self._pending: set[asyncio.Task[None]] = set()
        self._characters = 0
        outcomes = ("compared", "failed", "dropped")
        self._outcomes = {name: metrics.SHADOWS.labels(table.name, name) for name in outcomes}
        metrics.SHADOW_SAME_TOP.labels(table.name)
        self._breaker = CircuitBreaker(
            f"the second scoring of shadow {table.name!r}",
            fallback="requests are answered and not compared",
            failures=self._outcomes["failed"],
        )
        changes = table.changes_instruction or table.instruction
        self._preset = table.for_preset or (DEFAULT if changes else None)

    def offer(self, request: RankRequest, scored: Sequence[ScoredDocument], preset: str) -> None:
        """Compare a request that was scored, if it is chosen and there is room.

        Args:
            scored: in the order of the documents.
            preset: name of the instruction that it was judged by.
        """
        table = self._table
        if self._preset not in (None, preset) or self._chance() >= table.share:
            return
        characters = sum(map(len, request.documents), len(request.query))
        if (
            self.pending >= table.max_pending
            or self._characters + characters > _MAX_PENDING_CHARACTERS
            or not self._breaker.allows_call()
        ):
            self._outcomes["dropped"].inc()
            return
        self._characters += characters
        task = asyncio.create_task(self._compare(request, [one.logit for one in scored]))
        self._pending.add(task)

        def forget(task: asyncio.Task[None]) -> None:
            self._pending.discard(task)
            self._characters -= characters

        task.add_done_callback(forget)

    async def _compare(self, request: RankRequest, first: Sequence[float]) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._table.timeout_seconds):
                second = await self._score(request)
        except Exception as problem:
            # Whatever it is, the request itself was answered.
            self._breaker.failed(problem)
            return
        self._breaker.succeeded()
        seconds = time.perf_counter() - began
        compared = agreement(first, second, self._table.k)
        self._count(compared, seconds)
        if self._log is not None:
            line = comparison_line(self._table, request, first, second, compared, seconds)
            await self._log.write(line)

    def _count(self, compared: Agreement, seconds: float) -> None:
        name = self._table.name
        self._outcomes["compared"].inc()
        metrics.SHADOW_SAME_TOP.labels(name).inc(compared.same_top)
        if compared.tau is not None:
            metrics.SHADOW_TAU.labels(name).observe(compared.tau)
        metrics.SHADOW_OVERLAP.labels(name).observe(compared.overlap)
        metrics.SHADOW_SHIFT.labels(name).observe(compared.shift)
        metrics.SHADOW_SECONDS.labels(name).observe(seconds)

    @property
    def pending(self) -> int:
        """Second scorings that wait or run."""
        return len(self._pending)

    async def finished(self) -> None:
        """Wait until nothing is pending."""
        await asyncio.gather(*self._pending)

    async def close(self) -> None:
        """Give up what is pending."""
        for task in (pending := list(self._pending)):
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


class ShadowTraffics:
    """Every `[[shadow]]` table of a server."""

    def __init__(self, traffics: Sequence[ShadowTraffic]) -> None:
        self._traffics = traffics

    def offer(self, requests: Sequence[RankRequest], result: RankResult, profile: Profile) -> None:
        """Compare a request of a client that was scored whole; lines of batch jobs are not."""
        for request, scored in zip(requests, result.groups, strict=True):
            if len(scored) == len(request.documents) and not request.background:
                for traffic in self._traffics:
                    traffic.offer(request, scored, profile.preset)

    async def finished(self) -> None:
        """Wait until nothing is pending."""
        for traffic in self._traffics:
            await traffic.finished()


@asynccontextmanager
async def open_shadows(
    settings: Settings, ranker: Ranker, profiles: Profiles
) -> AsyncIterator[ShadowTraffics | None]:
    """The shadows of the settings; None without any. What is pending at the end is given up.

    Raises:
        BadSettings: a key or a log file cannot be used, or httpx is missing.
    """
    if not settings.shadow:
        yield None
        return
    async with AsyncExitStack() as stack:
        traffics = []
        for table in settings.shadow:
            log = None if table.log is None else stack.enter_context(open_log(table))
            scorer = await stack.enter_async_context(open_scorer(table, ranker, profiles))
            traffics.append(ShadowTraffic(table, scorer, log))
            stack.push_async_callback(traffics[-1].close)
        yield ShadowTraffics(traffics)
