"""Equal pairs in flight are computed once, and nobody loses because another left."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

import pytest

from rankd.errors import EngineDown, PoisonRequest
from rankd.ranking.coalescing import SingleFlight
from rankd.types import Prompt


def pairs(names: str, tokens: int = 3) -> dict[bytes, Prompt]:
    return {name.encode(): Prompt((1,), (ord(name),) * tokens) for name in names}


def right(names: str) -> dict[bytes, float]:
    return {name.encode(): float(ord(name)) for name in names}


class Engine:
    """Calls that end when the test says so."""

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
        """Let a call fail, or score everything, or only what was `ready` when time was over."""
        if problem is None:
            self._ends[call].set_result(ready)
        else:
            self._ends[call].set_exception(problem)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Desk:
    """Flights, and requests that are under way."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.flights = SingleFlight()

    async def ask(
        self,
        names: str,
        priority: int = 0,
        deadline: float | None = None,
        tokens: int = 3,
        joins: bool = True,
        caller: str = "",
    ) -> asyncio.Task[dict[bytes, float]]:
        task = asyncio.create_task(
            self.flights.score(
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


def test_an_equal_request_waits_for_the_first() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("ab"), await service.ask("ab")
        await service.engine.end(0)

        assert service.engine.calls == ["ab"]
        assert await first == await second == right("ab")

    asyncio.run(work())


def test_only_what_nobody_computes_is_computed() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("ab"), await service.ask("bcd")
        assert service.engine.calls == ["ab", "cd"]
        await service.engine.end(1)
        assert not second.done()
        await service.engine.end(0)

        assert await first == right("ab")
        assert await second == right("bcd")

    asyncio.run(work())


@pytest.mark.parametrize("how", ["cancelled", "late", "failed"])
def test_when_the_first_ends_early_one_of_the_others_computes(how: str) -> None:
    async def work() -> None:
        service = Desk()
        first, *others = [await service.ask("ab") for _ in range(4)]
        if how == "cancelled":
            first.cancel()
            await settle()
        elif how == "late":
            await service.engine.end(0, ready="")
        else:
            await service.engine.end(0, EngineDown("gone"))
        assert service.engine.calls == ["ab", "ab"]
        await service.engine.end(1)

        assert [await other for other in others] == [right("ab")] * 3
        assert service.engine.calls == ["ab", "ab"]
        if how == "late":
            assert await first == {}
        else:
            with pytest.raises((asyncio.CancelledError, EngineDown)):
                await first

    asyncio.run(work())


def test_a_failure_of_ones_own_is_ones_own() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("a"), await service.ask("a")
        await service.engine.end(0, EngineDown("one"))
        await service.engine.end(1, EngineDown("two"))

        with pytest.raises(EngineDown, match="one"):
            await first
        with pytest.raises(EngineDown, match="two"):
            await second

    asyncio.run(work())


def test_who_waits_and_leaves_does_not_stop_the_first() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("ab"), await service.ask("ab")
        second.cancel()
        await settle()
        third = await service.ask("ab")
        await service.engine.end(0)

        assert await first == await third == right("ab")
        assert service.engine.calls == ["ab"]

    asyncio.run(work())


def test_nobody_waits_for_the_less_urgent() -> None:
    async def work() -> None:
        service = Desk()
        slow, urgent = await service.ask("ab", priority=9), await service.ask("ab", priority=1)
        joins = await service.ask("ab", priority=5)
        await service.engine.end(1)

        assert service.engine.calls == ["ab", "ab"]
        assert await urgent == await joins == right("ab")
        assert not slow.done()
        await service.engine.end(0)
        assert await slow == right("ab")

    asyncio.run(work())


def test_the_less_urgent_waits_for_the_more_urgent() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("ab", priority=0), await service.ask("ab", priority=9)
        await service.engine.end(0)

        assert await first == await second
        assert service.engine.calls == ["ab"]

    asyncio.run(work())


def test_a_short_request_does_not_wait_for_a_long_one() -> None:
    async def work() -> None:
        service = Desk()
        long, short = await service.ask("abcdefgh"), await service.ask("ab")
        await service.engine.end(1)

        assert await short == right("ab")
        assert not long.done()
        await service.engine.end(0)
        assert await long == right("abcdefgh")

    asyncio.run(work())


def test_a_deadline_is_kept_while_another_computes() -> None:
    async def work() -> None:
        service = Desk()
        first = await service.ask("ab")
        began = time.monotonic()
        second = await service.ask("abc", deadline=began + 0.05)
        await service.engine.end(1)

        assert await second == right("c")
        assert time.monotonic() - began < 5
        await service.engine.end(0)
        assert await first == right("ab")

    asyncio.run(work())


def test_what_was_scored_before_the_first_ones_deadline_is_shared() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("abc"), await service.ask("abc")
        await service.engine.end(0, ready="ac")
        assert service.engine.calls == ["abc", "b"]
        await service.engine.end(1)

        assert await first == right("ac")
        assert await second == right("abc")

    asyncio.run(work())


def test_when_ones_own_time_is_over_what_others_have_scored_counts() -> None:
    async def work() -> None:
        service = Desk()
        first, slow = await service.ask("a"), await service.ask("b")
        second = await service.ask("abc")
        assert service.engine.calls == ["a", "b", "c"]
        await service.engine.end(0)
        await service.engine.end(2, ready="")

        assert await second == right("a")
        assert not slow.done()
        await service.engine.end(1)
        assert await first | await slow == right("ab")

    asyncio.run(work())


def test_what_ended_the_engine_is_computed_by_nobody_else() -> None:
    async def work() -> None:
        service = Desk()
        first, *others = await service.ask("ab"), await service.ask("ab"), await service.ask("abc")
        await service.engine.end(0, PoisonRequest("it ended the engine"))
        await service.engine.end(1)

        for task in (first, *others):
            with pytest.raises(PoisonRequest, match="it ended the engine"):
                await task
        assert service.engine.calls == ["ab", "c"]
        assert service.flights._flights == {}

    asyncio.run(work())


def test_who_shares_only_a_part_of_what_ended_the_engine_is_answered() -> None:
    async def work() -> None:
        service = Desk()
        first, second = await service.ask("ab"), await service.ask("acd")
        assert service.engine.calls == ["ab", "cd"]
        await service.engine.end(0, PoisonRequest("it ended the engine"))
        await service.engine.end(1)
        await service.engine.end(2)

        assert service.engine.calls == ["ab", "cd", "a"]
        assert await second == right("acd")
        with pytest.raises(PoisonRequest):
            await first

    asyncio.run(work())


def test_a_caller_of_few_does_not_wait_for_one_of_many() -> None:
    async def work() -> None:
        service = Desk()
        crowd = [await service.ask(name, caller="busy") for name in "abc"]
        quick = await service.ask("c", caller="quiet")
        another = await service.ask("b", caller="busy")
        assert service.engine.calls == ["a", "b", "c", "c"]
        await service.engine.end(3)
        assert await quick == right("c")
        assert not any(task.done() for task in crowd)
        await service.engine.end(1)
        await service.engine.end(2)

        # Now one call of the busy one is left, which is as soon as one of its own.
        shares = await service.ask("a", caller="quiet")
        await service.engine.end(0)
        assert await shares == right("a")
        assert await another == right("b")
        assert service.engine.calls == ["a", "b", "c", "c"]
        assert (service.flights._flights, service.flights._calls) == ({}, {})

    asyncio.run(work())


def test_who_joins_nobody_can_still_be_joined() -> None:
    async def work() -> None:
        service = Desk()
        first, alone = await service.ask("ab"), await service.ask("ab", joins=False)
        third = await service.ask("ab")
        assert service.engine.calls == ["ab", "ab"]
        await service.engine.end(1)

        assert await alone == await third == right("ab")
        await service.engine.end(0)
        assert await first == right("ab")

    asyncio.run(work())


def test_nothing_is_left_behind() -> None:
    async def work() -> None:
        service = Desk()
        tasks = [await service.ask("ab"), await service.ask("bc"), await service.ask("ab")]
        tasks[0].cancel()
        await settle()
        await service.engine.end(1)
        await service.engine.end(2)
        await asyncio.wait(tasks)

        assert service.engine.calls == ["ab", "c", "ab"]
        assert (service.flights._flights, service.flights._calls) == ({}, {})

    asyncio.run(work())


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_of_events_everyone_gets_their_own_answer(seed: int) -> None:
    dice = random.Random(seed)  # Time is turns of the loop, so a seed is an order.

    async def turns(most: int) -> None:
        for _ in range(dice.randrange(1, most)):
            await asyncio.sleep(0)

    async def compute(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
        await turns(20)
        if dice.random() < 0.2:
            raise EngineDown("now and then")
        return {key: float(pair.suffix[0]) for key, pair in pairs.items()}

    async def request(flights: SingleFlight) -> str:
        await turns(60)
        names = "".join(dice.sample("abcdefgh", dice.randrange(1, 8)))
        work = flights.score(
            pairs(names), compute, caller=dice.choice("xy"), priority=dice.randrange(3)
        )
        task = asyncio.create_task(work)
        if dice.random() < 0.3:
            await turns(12)
            if task.cancel():
                return "left"
        try:
            assert await task == right(names)
        except EngineDown:
            return "failed"
        return "answered"

    async def work() -> None:
        flights = SingleFlight()
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(request(flights) for _ in range(100)))

        assert {"left", "failed", "answered"} == set(ends)
        assert (flights._flights, flights._calls) == ({}, {})

    asyncio.run(work())
