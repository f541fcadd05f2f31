"""The `Engine` contract over replicas on a Ray cluster.

A batch goes to the replica with the fewest outstanding tokens. If that replica dies, `score` raises
`EngineDied` and the scheduler scores the batch again, each of its requests alone: a request that
kills replicas kills two of them at most. If the replica stops answering pings, the batch is sent to
a second one too, and the first answer counts. Scoring twice is harmless: equal batches have equal
logits.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID
from rankd.engines.base import EngineInfo, PromptsTooLarge, Slots
from rankd.engines.packing import pack_prompts, unpack_logits
from rankd.engines.ray import protocol
from rankd.engines.ray.cluster import connected
from rankd.engines.ray.protocol import Pong, ReplicaFacts
from rankd.engines.ray.replicas import RemoteBatch, Replica, ReplicaGone, ReplicaSet
from rankd.errors import (
    BadSettings,
    EngineDied,
    EngineDown,
    EngineRestarting,
    InternalError,
    SetupError,
)
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry import metrics
from rankd.telemetry.startup import StartupStep, report_step
from rankd.types import AnswerTokenIds, Prompt

_log = logging.getLogger("rankd")

# Seconds between two pings of a replica, and seconds without an answer until it counts as silent.
# Replicas answer while they compute, so a busy one is not silent.
PING_EVERY = 1.0
SILENT = 5.0

# Seconds after a death in which a replica is pinged before it gets a batch: others may have died at
# the same moment, and a batch must not be blamed for that.
_CAREFUL_SECONDS = 30.0


class RayEngine:
    """Sends batches to replicas; see the module's docstring.

    Args:
        info: of the replicas' engines.
        replicas: at least one of them takes batches.
    """

    def __init__(self, info: EngineInfo, replicas: ReplicaSet) -> None:
        self.info = info
        self.slots = Slots(0, eager=0)
        self._replicas = replicas
        self._careful_until = 0.0
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        # Replicas add up the waiting tokens of all fronts.
        self._name = uuid.uuid4().hex
        replicas.on_change = self._count_slots
        self._count_slots()
        metrics.RAY_OUTSTANDING.set_function(self._outstanding)

    @property
    def replicas(self) -> list[Replica]:
        """Those that take batches now, in the order in which Serve started them."""
        return self._replicas.ready

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        remote = _remote_batch(batch)
        try:
            self._send(remote, await self._choose(remote))
            logits = await remote.reply
        finally:
            remote.end()
        if None in logits:
            raise PromptsTooLarge(logits)
        return cast(list[float], logits)

    async def score_on(self, replica: Replica, batch: Sequence[Prompt]) -> list[float]:
        """As `score`, on a certain replica."""
        remote = _remote_batch(batch)
        try:
            self._send(remote, replica)
            return cast(list[float], await remote.reply)
        finally:
            remote.end()

    async def check(self) -> None:
        """Raises `EngineRestarting` while no replica takes batches."""
        if self._is_closed:
            raise EngineDown("the engine is closed")
        if not self.slots.count:
            raise self._no_replica()

    def _no_replica(self) -> EngineRestarting:
        refused = next(iter(self._replicas.refused.values()), "")
        known = len(self._replicas.by_name)
        return EngineRestarting(
            f"no replica of {known} on the Ray cluster answers"
            + (f"; {len(self._replicas.refused)} are not used: {refused}" if refused else "")
        )

    def _outstanding(self) -> float:
        return float(sum(replica.outstanding for replica in self._replicas.by_name.values()))

    def _count_slots(self) -> None:
        ready = self._replicas.ready
        slots = sum(replica.slots for replica in ready)
        eager = sum(replica.eager for replica in ready)
        metrics.RAY_REPLICAS.set(len(ready))
        metrics.ENGINE_UP.set(bool(ready))
        if (slots, eager, len(ready)) != (self.slots.count, self.slots.eager, self.slots.replicas):
            self.slots.set(slots, eager, len(ready))

    # Batches

    async def _choose(self, batch: RemoteBatch) -> Replica:
        """The next replica.

        Raises:
            EngineRestarting: there is none.
        """
        while (replica := self._replicas.least_loaded(batch.calls)) is not None:
            if time.monotonic() > self._careful_until:
                return replica
            await asyncio.wait([self._start(self._ping(replica))], timeout=SILENT)
            if replica.pinged is not None:
                self._mark_silent(replica)
            elif replica.takes_batches:
                return replica
        raise self._no_replica()

    def _send(self, batch: RemoteBatch, replica: Replica) -> None:
        # Counted now: the next batch is chosen for before the task begins.
        replica.outstanding += batch.tokens
        replica.batches.add(batch)
        batch.calls[replica] = task = asyncio.create_task(self._call(batch, replica))
        task.add_done_callback(partial(_call_ended, batch, replica))

    async def _call(self, batch: RemoteBatch, replica: Replica) -> None:
        """Have one replica score a batch. Raises what the batch fails with."""
        try:
            answer = await replica.remote.call("score", batch.body, batch.request_ids)
        except ReplicaGone as problem:
            self._mark_gone(replica, problem)
            metrics.RAY_RETRIES.inc()
            raise EngineDied(f"replica {replica.name} is gone: {problem}") from None
        await self._accept(batch, replica, answer)

    async def _accept(self, batch: RemoteBatch, replica: Replica, answer: bytes) -> None:
        """Take over a replica's answer. Raises what the batch fails with."""
        kind, content = answer[:1], answer[1:]
        if kind == protocol.LOGITS:
            batch.answer(unpack_logits(content))
            if replica.name in self._replicas.by_name:
                metrics.RAY_TOKENS.labels(replica.name).inc(batch.tokens)
            return
        message = f"replica {replica.name}: {content.decode()}"
        if kind == protocol.FAILED:
            raise InternalError(message)
        self._set_slots(replica, Pong(0, 0))
        metrics.RAY_RETRIES.inc()
        if kind == protocol.DIED:
            raise EngineDied(message)
        # Not computed, so another replica may have it as if nothing had happened.
        self._send(batch, await self._choose(batch))

    async def _hedge(self, batch: RemoteBatch) -> None:
        """Send a batch to a further replica, if there is one."""
        with suppress(EngineRestarting):
            replica = await self._choose(batch)
            if not batch.reply.done():
                metrics.RAY_HEDGES.inc()
                self._send(batch, replica)

    # Health of the replicas

    async def watch(self) -> None:
        """Ping the replicas until cancelled, and hedge the batches of those that are silent."""
        while True:
            for replica in [*self._replicas.by_name.values()]:
                self._look_after(replica)
            await asyncio.sleep(PING_EVERY)

    def _look_after(self, replica: Replica) -> None:
        if replica.pinged is None:
            self._start(self._ping(replica))
        elif not replica.is_silent and time.monotonic() - replica.pinged > SILENT:
            self._mark_silent(replica)
        if replica.is_silent:
            for batch in [*replica.batches]:
                if all(other.is_silent for other in batch.calls):
                    self._start(self._hedge(batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ping(self, replica: Replica) -> None:
        waiting = self.slots.waiting_tokens() // max(len(self._replicas.by_name), 1)
        replica.pinged = replica.pinged or time.monotonic()
        try:
            pong = Pong(*await replica.remote.call("ping", self._name, waiting))
        except ReplicaGone as problem:
            replica.pinged = None
            self._mark_gone(replica, problem)
            return
        replica.pinged = None
        if replica.is_silent:
            _log.warning("replica %s answers again", replica.name)
            replica.is_silent = False
        self._set_slots(replica, pong)

    def _set_slots(self, replica: Replica, pong: Pong) -> None:
        replica.slots, replica.eager = pong
        self._count_slots()

    def _mark_silent(self, replica: Replica) -> None:
        _log.warning(
            "replica %s on %s has not answered for %g seconds; others score what it has",
            *(replica.name, replica.facts.node, SILENT),
        )
        replica.is_silent = True
        self._careful_until = time.monotonic() + _CAREFUL_SECONDS
        self._count_slots()

    def _mark_gone(self, replica: Replica, problem: ReplicaGone) -> None:
        """A call failed because of the replica itself."""
        is_known = self._replicas.by_name.get(replica.name) is replica
        if problem.for_good:
            self._replicas.mark_dead(replica)
        if is_known and not (replica.is_silent and not problem.for_good):
            metrics.RAY_DEATHS.inc()
            _log.warning("replica %s on %s is gone: %s", replica.name, replica.facts.node, problem)
        replica.is_silent = True
        self._careful_until = time.monotonic() + _CAREFUL_SECONDS
        self._count_slots()

    def close(self) -> None:
        self._is_closed = True
        metrics.ENGINE_UP.set(0)
        for task in self._tasks:
            task.cancel()


def _call_ended(batch: RemoteBatch, replica: Replica, task: asyncio.Task[None]) -> None:
    """A callback, because a task that is cancelled before it begins runs no code of its own."""
    replica.outstanding -= batch.tokens
    replica.batches.discard(batch)
    batch.calls.pop(replica, None)
    if not task.cancelled() and (problem := task.exception()) is not None:
        batch.fail(problem)


def _remote_batch(batch: Sequence[Prompt]) -> RemoteBatch:
    body = pack_prompts(batch)
    reply = asyncio.get_running_loop().create_future()
    return RemoteBatch(body, len(body) // 4, REQUEST_ID.get(), reply)


@asynccontextmanager
async def open_ray_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[RayEngine]:
    """Connect to the cluster and wait for a replica.

    Raises:
        BadSettings: the replicas have another checkpoint or other limits than this front.
        SetupError: there is no such cluster or application, or no replica was ready within
            `engine_stuck_seconds`.
    """
    fingerprint = await asyncio.to_thread(checkpoint.fingerprint)
    max_tokens = min(settings.max_tokens, checkpoint.max_tokens)

    def refusal(facts: ReplicaFacts) -> str:
        if facts.fingerprint != fingerprint:
            return f"its checkpoint is not this server's {checkpoint.name}"
        if facts.answers != answers:
            return f"its answer tokens are {facts.answers}, not {answers}"
        if facts.engine.max_tokens != max_tokens:
            return f"its max_tokens is {facts.engine.max_tokens:,}, this server's {max_tokens:,}"
        if settings.deterministic and not facts.engine.deterministic:
            return "its scores are not deterministic"
        return ""

    replicas = ReplicaSet(refusal)
    report_step(StartupStep(f"connecting to the Ray cluster at {settings.ray_address}"))
    async with connected(settings.ray_address, settings.ray_app, replicas.update):
        facts = await _first(replicas, settings)
        info = _info(facts, checkpoint)
        engine = RayEngine(info, replicas)
        watching = asyncio.create_task(engine.watch())
        try:
            yield engine
        finally:
            engine.close()
            watching.cancel()
            await asyncio.wait([watching])


async def _first(replicas: ReplicaSet, settings: Settings) -> ReplicaFacts:
    """Wait for the first replica; returns its facts."""
    report_step(StartupStep(f"waiting for replicas of {settings.ray_app} on the Ray cluster"))
    changed = asyncio.Event()
    replicas.on_change = changed.set
    try:
        async with asyncio.timeout(settings.engine_stuck_seconds):
            while replicas.standard is None:
                if replicas.refused:
                    why = next(iter(replicas.refused.values()))
                    raise BadSettings(
                        f"the replicas of {settings.ray_app} do not fit this server: {why}; "
                        "start both with the same model and settings"
                    )
                await changed.wait()
                changed.clear()
    except TimeoutError:
        raise SetupError(
            f"no replica of {settings.ray_app} was ready within "
            f"{settings.engine_stuck_seconds} seconds (--engine-stuck-seconds); "
            "`ray status` shows what the cluster lacks"
        ) from None
    return replicas.standard


def _info(facts: ReplicaFacts, checkpoint: Checkpoint) -> EngineInfo:
    """The replicas' engine, under this front's name of the model."""
    values = {name: getattr(facts.engine, name) for name in EngineInfo.__dataclass_fields__}
    return EngineInfo(**values | {"model": checkpoint.name, "revision": checkpoint.revision})
