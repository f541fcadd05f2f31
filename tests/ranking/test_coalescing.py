"""Equal pairs in flight are computed once; a request that ends early fails no other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

import pytest

from rankd.errors import EngineDown, PoisonRequest
from rankd.ranking.coalescing import SingleFlight
from rankd.types import Prompt

pytestmark = pytest.mark.anyio


def pairs(names: str, tokens: int = 3) -> dict[bytes, Prompt]:
    return {name.encode(): Prompt((1,), (ord(name),) * tokens) for name in names}


def right(names: str) -> dict[bytes, float]:
    return {name.encode(): float(ord(name)) for name in names}


class Engine:
    """Engine calls that end when the test ends them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._ends: list[asyncio.Future[str | None]] = []

    async def __call__(self, pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
        self.calls.append("".join(key.decode() for key in pairs))
        self._ends.append(asyncio.get_running_loop().create_future())
        ready = await self._ends[-1]
        return {
            key: float(pair.suffix[0])
            for key, pair in pairs.items()
            if ready is None or key.decode() in ready
        }

    async def end(
        self, call: int, problem: Exception | None = None, *, ready: str | None = None
    ) -> None:
        """End a call: with an error, or with all its pairs, or only those in `ready`."""
        if problem is None:
            self._ends[call].set_result(ready)
        else:
            self._ends[call].set_exception(problem)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Requests:
    """Starts requests that share a `SingleFlight` and an engine."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.single_flight = SingleFlight()

    async def start(
        self,
        names: str,
        priority: int = 0,
        deadline: float | None = None,
        tokens: int = 3,
        joins: bool = True,
        caller: str = "",
    ) -> asyncio.Task[dict[bytes, float]]:
        task = asyncio.create_task(
            self.single_flight.score(
                pairs(names, tokens),
                self.engine,
                caller=caller,
                priority=priority,
                deadline=deadline,
                joins=joins,
            )
        )
        await settle()
        return task


async def test_an_equal_request_waits_for_the_first() -> None:
    requests = Requests()
    first, second = await requests.start("ab"), await requests.start("ab")
    await requests.engine.end(0)

    assert requests.engine.calls == ["ab"]
    assert await first == await second == right("ab")


async def test_only_pairs_that_are_not_in_flight_are_computed() -> None:
    requests = Requests()
    first, second = await requests.start("ab"), await requests.start("bcd")
    assert requests.engine.calls == ["ab", "cd"]
    await requests.engine.end(1)
    assert not second.done()
    await requests.engine.end(0)

    assert await first == right("ab")
    assert await second == right("bcd")


@pytest.mark.parametrize("how", ["cancelled", "late", "failed"])
async def test_when_the_first_ends_early_one_of_the_others_computes(how: str) -> None:
    requests = Requests()
    first, *others = [await requests.start("ab") for _ in range(4)]
    if how == "cancelled":
        first.cancel()
        await settle()
    elif how == "late":
        await requests.engine.end(0, ready="")
    else:
        await requests.engine.end(0, EngineDown("gone"))
    assert requests.engine.calls == ["ab", "ab"]
    await requests.engine.end(1)

    assert [await other for other in others] == [right("ab")] * 3
    assert requests.engine.calls == ["ab", "ab"]
    if how == "late":
        assert await first == {}
    else:
        with pytest.raises((asyncio.CancelledError, EngineDown)):
            await first


async def test_each_request_raises_the_error_of_its_own_call() -> None:
    requests = Requests()
    first, second = await requests.start("a"), await requests.start("a")
    await requests.engine.end(0, EngineDown("one"))
    await requests.engine.end(1, EngineDown("two"))

    with pytest.raises(EngineDown, match="one"):
        await first
    with pytest.raises(EngineDown, match="two"):
        await second


async def test_a_waiting_request_that_is_cancelled_does_not_stop_the_first() -> None:
    requests = Requests()
    first, second = await requests.start("ab"), await requests.start("ab")
    second.cancel()
    await settle()
    third = await requests.start("ab")
    await requests.engine.end(0)

    assert await first == await third == right("ab")
    assert requests.engine.calls == ["ab"]


async def test_a_request_does_not_wait_for_a_less_urgent_one() -> None:
    requests = Requests()
    slow, urgent = await requests.start("ab", priority=9), await requests.start("ab", priority=1)
    joins = await requests.start("ab", priority=5)
    await requests.engine.end(1)

    assert requests.engine.calls == ["ab", "ab"]
    assert await urgent == await joins == right("ab")
    assert not slow.done()
    await requests.engine.end(0)
    assert await slow == right("ab")


async def test_a_request_waits_for_a_more_urgent_one() -> None:
    requests = Requests()
    first, second = await requests.start("ab", priority=0), await requests.start("ab", priority=9)
    await requests.engine.end(0)

    assert await first == await second
    assert requests.engine.calls == ["ab"]


async def test_a_short_request_does_not_wait_for_a_long_one() -> None:
    requests = Requests()
    long, short = await requests.start("abcdefgh"), await requests.start("ab")
    await requests.engine.end(1)

    assert await short == right("ab")
    assert not long.done()
    await requests.engine.end(0)
    assert await long == right("abcdefgh")


async def test_a_deadline_ends_the_wait_for_another_request() -> None:
    requests = Requests()
    first = await requests.start("ab")
    began = time.monotonic()
    second = await requests.start("abc", deadline=began + 0.05)
    await requests.engine.end(1)

    assert await second == right("c")
    assert time.monotonic() - began < 60
    await requests.engine.end(0)
    assert await first == right("ab")


async def test_pairs_scored_before_the_deadline_of_the_first_are_shared() -> None:
    requests = Requests()
    first, second = await requests.start("abc"), await requests.start("abc")
    await requests.engine.end(0, ready="ac")
    assert requests.engine.calls == ["abc", "b"]
    await requests.engine.end(1)

    assert await first == right("ac")
    assert await second == right("abc")


async def test_after_the_deadline_pairs_that_others_have_scored_are_returned() -> None:
    requests = Requests()
    first, slow = await requests.start("a"), await requests.start("b")
    second = await requests.start("abc")
    assert requests.engine.calls == ["a", "b", "c"]
    await requests.engine.end(0)
    await requests.engine.end(2, ready="")

    assert await second == right("a")
    assert not slow.done()
    await requests.engine.end(1)
    assert await first | await slow == right("ab")


async def test_a_call_that_killed_the_engine_is_not_computed_again() -> None:
    requests = Requests()
    first, *others = [await requests.start(names) for names in ("ab", "ab", "abc")]
    await requests.engine.end(0, PoisonRequest("it ended the engine"))
    await requests.engine.end(1)

    for task in (first, *others):
        with pytest.raises(PoisonRequest, match="it ended the engine"):
            await task
    assert requests.engine.calls == ["ab", "c"]
    assert requests.single_flight._in_flight == {}


async def test_a_request_that_joined_a_part_of_a_poison_call_is_answered() -> None:
    requests = Requests()
    first, second = await requests.start("ab"), await requests.start("acd")
    assert requests.engine.calls == ["ab", "cd"]
    await requests.engine.end(0, PoisonRequest("it ended the engine"))
    await requests.engine.end(1)
    await requests.engine.end(2)

    assert requests.engine.calls == ["ab", "cd", "a"]
    assert await second == right("acd")
    with pytest.raises(PoisonRequest):
        await first


async def test_a_caller_with_few_calls_does_not_wait_for_one_with_many() -> None:
    requests = Requests()
    crowd = [await requests.start(name, caller="busy") for name in "abc"]
    quick = await requests.start("c", caller="quiet")
    another = await requests.start("b", caller="busy")
    assert requests.engine.calls == ["a", "b", "c", "c"]
    await requests.engine.end(3)
    assert await quick == right("c")
    assert not any(task.done() for task in crowd)
    await requests.engine.end(1)
    await requests.engine.end(2)

    # The busy caller has one call left, so that is served as soon as a new one.
    shares = await requests.start("a", caller="quiet")
    await requests.engine.end(0)
    assert await shares == right("a")
    assert await another == right("b")
    assert requests.engine.calls == ["a", "b", "c", "c"]
    assert (requests.single_flight._in_flight, requests.single_flight._calls_per_caller) == ({}, {})


async def test_a_request_that_does_not_join_can_be_joined() -> None:
    requests = Requests()
    first, alone = await requests.start("ab"), await requests.start("ab", joins=False)
    third = await requests.start("ab")
    assert requests.engine.calls == ["ab", "ab"]
    await requests.engine.end(1)

    assert await alone == await third == right("ab")
    await requests.engine.end(0)
    assert await first == right("ab")


async def test_ended_calls_are_removed() -> None:
    requests = Requests()
    tasks = [await requests.start("ab"), await requests.start("bc"), await requests.start("ab")]
    tasks[0].cancel()
    await settle()
    await requests.engine.end(1)
    await requests.engine.end(2)
    await asyncio.wait(tasks)

    assert requests.engine.calls == ["ab", "c", "ab"]
    assert (requests.single_flight._in_flight, requests.single_flight._calls_per_caller) == ({}, {})


@pytest.mark.parametrize("seed", range(20))
async def test_in_any_order_of_events_each_request_gets_its_own_logits(seed: int) -> None:
    # Nothing depends on the clock, so a seed always gives the same order.
    rng = random.Random(seed)

    async def some_iterations(limit: int) -> None:
        for _ in range(rng.randrange(1, limit)):
            await asyncio.sleep(0)

    async def compute(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
        await some_iterations(20)
        if rng.random() < 0.2:
            raise EngineDown("crashed")
        return {key: float(pair.suffix[0]) for key, pair in pairs.items()}

    async def request(single_flight: SingleFlight) -> str:
        await some_iterations(60)
        names = "".join(rng.sample("abcdefgh", rng.randrange(1, 8)))
        work = single_flight.score(
            pairs(names), compute, caller=rng.choice("xy"), priority=rng.randrange(3)
        )
        task = asyncio.create_task(work)
        if rng.random() < 0.3:
            await some_iterations(12)
            if task.cancel():
                return "left"
        try:
            assert await task == right(names)
        except EngineDown:
            return "failed"
        return "answered"

    single_flight = SingleFlight()
    async with asyncio.timeout(30):
        ends = await asyncio.gather(*(request(single_flight) for _ in range(100)))

    assert {"left", "failed", "answered"} == set(ends)
    assert (single_flight._in_flight, single_flight._calls_per_caller) == ({}, {})
