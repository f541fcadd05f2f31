"""The Ray engine over replicas that a test controls, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from rankd.engines.base import EngineInfo, PromptsTooLarge
from rankd.engines.packing import pack_logits, unpack_prompts
from rankd.engines.ray import engine as ray_engine
from rankd.engines.ray import protocol
from rankd.engines.ray.engine import RayEngine
from rankd.engines.ray.protocol import Pong, ReplicaFacts
from rankd.engines.ray.replicas import ReplicaGone, ReplicaSet
from rankd.errors import EngineDied, EngineRestarting, InternalError, PoisonRequest
from rankd.ranking.scheduler import open_scheduler
from rankd.telemetry import metrics
from rankd.types import AnswerTokenIds, Prompt

pytestmark = pytest.mark.anyio

FACTS = ReplicaFacts(
    fingerprint="abc",
    answers=AnswerTokenIds(9, 8),
    engine=EngineInfo("native", "model", "1", "cpu", "float32", max_tokens=512, batch_tokens=64),
    slots=2,
    eager=1,
    node="10.0.0.1",
)
POISON = 13


@dataclass
class ControlledReplica:
    """Scores a prompt as the first id of its document.

    Attributes:
        hangs: neither batches nor pings are answered.
        answer: instead of logits.
        gone: raised by every call.
        batches: how many it got; `running`: how many it has.
    """

    hangs: bool = False
    answer: bytes | None = None
    gone: ReplicaGone | None = None
    pong: Pong = field(default_factory=lambda: Pong(2, 1))
    batches: int = 0
    running: int = 0
    cancelled: int = 0
    waiting_tokens: int = 0
    pings: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    dies_of_poison: bool = True

    def __post_init__(self) -> None:
        self.hold.set()

    async def call(self, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return await (self._score(arguments[0]) if method == "score" else self._ping(arguments[1]))

    async def _ping(self, waiting_tokens: int) -> Pong:
        await self._stuck_or_gone()
        self.waiting_tokens = waiting_tokens
        self.pings += 1
        return self.pong

    async def _stuck_or_gone(self) -> None:
        if self.gone is not None:
            raise self.gone
        while self.hangs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _score(self, body: bytes) -> bytes:
        self.batches += 1
        self.running += 1
        try:
            await self._stuck_or_gone()
            await self.hold.wait()
            suffixes = unpack_prompts(body).suffixes
            if self.dies_of_poison and any(POISON in suffix for _, suffix in suffixes):
                self.gone = ReplicaGone("killed", for_good=True)
            await self._stuck_or_gone()
            logits = [None if suffix[0] == 0 else float(suffix[0]) for _, suffix in suffixes]
            return self.answer or protocol.LOGITS + pack_logits(logits)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def prompts(*ids: int) -> list[Prompt]:
    return [Prompt((1, 2, 3), (one, 4)) for one in ids]


def replica_set(
    replicas: Sequence[ControlledReplica], refusal: Callable[[ReplicaFacts], str] = lambda _: ""
) -> ReplicaSet:
    found = ReplicaSet(refusal)
    found.update({f"r{n}": (one, FACTS.as_json()) for n, one in enumerate(replicas)})
    return found


@asynccontextmanager
async def opened(*replicas: ControlledReplica) -> AsyncIterator[RayEngine]:
    engine = RayEngine(FACTS.engine, replica_set(replicas))
    watching = asyncio.create_task(engine.watch())
    try:
        yield engine
    finally:
        engine.close()
        watching.cancel()
        await asyncio.wait([watching])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "PING_EVERY", 0.02)
    monkeypatch.setattr(ray_engine, "SILENT", 0.2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def unanswered(engine: RayEngine) -> bool:
    """Whether a ping is on its way."""
    return any(replica.pinged is not None for replica in engine.replicas)


async def test_slots_follow_the_replicas_that_take_batches() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    async with opened(first, second) as engine:
        assert (engine.slots.count, engine.slots.eager, engine.slots.replicas) == (4, 2, 2)
        first.hangs = True
        await until(lambda: engine.slots.count == 2)
        first.hangs = False
        await until(lambda: engine.slots.count == 4)
        second.pong = Pong(0, 0)
        await until(lambda: engine.slots.replicas == 1)
        second.gone = first.gone = ReplicaGone("killed", for_good=True)
        await until(lambda: engine.slots.count == 0)
        with pytest.raises(EngineRestarting, match="no replica of 0"):
            await engine.check()


async def test_a_batch_goes_to_the_replica_with_the_fewest_outstanding_tokens() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    async with opened(first, second) as engine:
        first.hold.clear()
        second.hold.clear()
        large = asyncio.create_task(engine.score(prompts(*range(1, 9))))
        await until(lambda: first.batches == 1)
        small = [asyncio.create_task(engine.score(prompts(5))) for _ in range(2)]
        await until(lambda: second.batches == 2)
        first.hold.set()
        second.hold.set()

        assert await large == [float(one) for one in range(1, 9)]
        assert [await one for one in small] == [[5.0], [5.0]]


async def test_a_death_is_told_to_the_scheduler_which_has_another_replica_score_the_batch() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    retries = metrics.RAY_RETRIES._value.get()
    deaths = metrics.RAY_DEATHS._value.get()
    async with opened(first, second) as engine, open_scheduler(engine, patience=60) as scheduler:
        first.hold.clear()
        call = asyncio.create_task(scheduler.score(prompts(5, 6)))
        await until(lambda: first.batches == 1)
        first.gone = ReplicaGone("killed", for_good=True)
        first.hold.set()

        assert await call == [5.0, 6.0]
        assert (first.batches, second.batches) == (1, 1)
    assert metrics.RAY_RETRIES._value.get() == retries + 1
    assert metrics.RAY_DEATHS._value.get() == deaths + 1


async def test_a_poisonous_prompt_kills_two_replicas_and_no_other_request_is_lost() -> None:
    replicas = [ControlledReplica() for _ in range(4)]
    async with opened(*replicas) as engine, open_scheduler(engine, patience=60) as scheduler:
        others = [asyncio.create_task(scheduler.score(prompts(5, 6))) for _ in range(6)]
        with pytest.raises(PoisonRequest):
            await scheduler.score(prompts(5, POISON))

        assert [await one for one in others] == [[5.0, 6.0]] * 6
        assert len([one for one in replicas if one.gone]) == 2


async def test_a_batch_is_not_blamed_for_a_death_that_was_not_noticed_yet() -> None:
    """Two replicas of one machine die together: the batch is sent to neither of them again."""
    first, second, third = (ControlledReplica() for _ in range(3))
    async with (
        opened(first, second, third) as engine,
        open_scheduler(engine, patience=60) as scheduler,
    ):
        first.hold.clear()
        call = asyncio.create_task(scheduler.score(prompts(5)))
        await until(lambda: first.batches == 1)
        first.gone = second.gone = ReplicaGone("its node died", for_good=True)
        first.hold.set()

        assert await call == [5.0]
        assert third.batches == 1


async def test_a_silent_replica_keeps_its_batch_and_a_second_one_scores_it_too() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    hedges = metrics.RAY_HEDGES._value.get()
    async with opened(first, second) as engine:
        first.hangs = True
        assert await engine.score(prompts(5)) == [5.0]
        assert (first.batches, second.batches) == (1, 1)
        await until(lambda: first.cancelled == 1)
    assert metrics.RAY_HEDGES._value.get() == hedges + 1


async def test_a_slow_replica_that_answers_pings_is_not_hedged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(ray_engine, "time", SimpleNamespace(monotonic=lambda: now))
    first, second = ControlledReplica(), ControlledReplica()
    async with opened(first, second) as engine:
        first.hold.clear()
        call = asyncio.create_task(engine.score(prompts(5)))
        await until(lambda: first.running == 1)
        for _ in range(5):
            pings = first.pings
            await until(lambda pings=pings: first.pings > pings and not unanswered(engine))  # type: ignore[misc]
            now += 1000
        assert second.batches == 0
        first.hold.set()
        assert await call == [5.0]


async def test_a_batch_that_hangs_everywhere_is_answered_when_one_replica_wakes() -> None:
    first, second = ControlledReplica(hangs=True), ControlledReplica(hangs=True)
    async with opened(first, second) as engine:
        call = asyncio.create_task(engine.score(prompts(5)))
        await until(lambda: engine.slots.count == 0)
        second.hangs = False
        assert await call == [5.0]


async def test_cancelling_a_batch_cancels_it_at_the_replica() -> None:
    first = ControlledReplica()
    async with opened(first) as engine:
        first.hold.clear()
        call = asyncio.create_task(engine.score(prompts(5)))
        await until(lambda: first.running == 1)
        call.cancel()
        await until(lambda: first.running == 0)
        assert first.cancelled == 1


async def test_a_replica_whose_engine_restarts_hands_the_batch_on() -> None:
    first, second = ControlledReplica(answer=protocol.AWAY + b"restarting"), ControlledReplica()
    async with opened(first, second) as engine:
        first.pong = Pong(0, 0)
        assert await engine.score(prompts(5)) == [5.0]


async def test_an_engine_that_died_in_a_replica_is_a_death() -> None:
    first = ControlledReplica(answer=protocol.DIED + b"the engine died")
    async with opened(first) as engine:
        with pytest.raises(EngineDied, match="the engine died"):
            await engine.score(prompts(5))


async def test_a_bug_in_a_replica_is_an_internal_error() -> None:
    async with opened(ControlledReplica(answer=protocol.FAILED + b"KeyError: 'x'")) as engine:
        with pytest.raises(InternalError, match="KeyError"):
            await engine.score(prompts(5))


async def test_prompts_without_memory_are_told_apart() -> None:
    async with opened(ControlledReplica()) as engine:
        with pytest.raises(PromptsTooLarge) as problem:
            await engine.score(prompts(5, 0))
    assert problem.value.logits == (5.0, None)


async def test_replicas_hear_their_share_of_the_waiting_tokens() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    async with opened(first, second) as engine:
        engine.slots.waiting_tokens = lambda: 3000
        await until(lambda: first.waiting_tokens == 1500 == second.waiting_tokens)


def changed(**values: Any) -> ReplicaFacts:
    return replace(FACTS, engine=replace(FACTS.engine, **values))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (replace(FACTS, fingerprint="other"), "its checkpoint differs"),
        (replace(FACTS, answers=AnswerTokenIds(9, None)), "its answer tokens are"),
        (replace(FACTS, protocol=2), "another protocol"),
        (changed(dtype="bfloat16"), "its dtype is 'bfloat16', not 'float32'"),
        (changed(max_tokens=256), "its max_tokens is 256, not 512"),
        (changed(arithmetic="torch 1"), "its arithmetic is 'torch 1', not ''"),
        (changed(name="vllm"), "its name is 'vllm', not 'native'"),
    ],
)
async def test_replicas_that_score_otherwise_are_not_used(facts: ReplicaFacts, why: str) -> None:
    found = replica_set([ControlledReplica()])
    found.update(
        {
            "r0": (ControlledReplica(), FACTS.as_json()),
            "other": (ControlledReplica(), facts.as_json()),
        }
    )

    assert [*found.by_name] == ["r0"]
    assert why in found.refused["other"]


async def test_names_of_model_and_device_may_differ_between_machines() -> None:
    found = replica_set([ControlledReplica()])
    other = changed(model="another-folder", device="cuda:1").as_json()
    found.update({"r0": (ControlledReplica(), FACTS.as_json()), "r1": (ControlledReplica(), other)})

    assert [*found.by_name] == ["r0", "r1"]


async def test_a_dead_replica_is_not_taken_back_while_the_cluster_still_lists_it() -> None:
    first, second = ControlledReplica(), ControlledReplica()
    found = replica_set([first, second])
    found.mark_dead(found.by_name["r0"])
    found.update({f"r{n}": (one, FACTS.as_json()) for n, one in enumerate((first, second))})

    assert [*found.by_name] == ["r1"]


def test_facts_survive_json() -> None:
    assert ReplicaFacts.of_json(FACTS.as_json()) == FACTS


async def test_a_request_is_spread_over_all_replicas() -> None:
    replicas = [ControlledReplica() for _ in range(4)]
    async with opened(*replicas) as engine, open_scheduler(engine, patience=60) as scheduler:
        for one in replicas:
            one.hold.clear()
        call = asyncio.create_task(scheduler.score(prompts(*range(100, 500))))
        await until(lambda: all(one.running == 2 for one in replicas))
        for one in replicas:
            one.hold.set()

        assert await call == [float(one) for one in range(100, 500)]
