"""Slots are granted in order of arrival, and a cancelled caller leaks none."""

from __future__ import annotations

import asyncio

import pytest

from rankd.batches.weighted_semaphore import WeightedSemaphore

pytestmark = pytest.mark.anyio


async def let_tasks_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_request_for_more_than_all_slots_waits_for_all_and_is_not_overtaken() -> None:
    slots = WeightedSemaphore(4)
    order: list[str] = []

    async def take(name: str, wanted: int) -> int:
        taken = await slots.take(wanted)
        order.append(name)
        return taken

    first = await take("first", 2)
    large = asyncio.create_task(take("large", 99))
    await let_tasks_run()
    small = asyncio.create_task(take("small", 1))
    await let_tasks_run()
    assert order == ["first"]

    slots.give(first)
    await let_tasks_run()
    assert order == ["first", "large"]
    assert await large == 4

    slots.give(4)
    assert await small == 1
    assert order == ["first", "large", "small"]


async def test_cancelling_a_waiting_caller_serves_the_next_one() -> None:
    slots = WeightedSemaphore(2)
    await slots.take(1)
    large, small = (asyncio.create_task(slots.take(wanted)) for wanted in (2, 1))
    await let_tasks_run()

    large.cancel()
    await let_tasks_run()

    assert large.cancelled()
    assert await small == 1


async def test_a_caller_cancelled_as_it_is_served_gives_its_slots_back() -> None:
    slots = WeightedSemaphore(1)
    await slots.take(1)
    waiting = asyncio.create_task(slots.take(1))
    await let_tasks_run()

    slots.give(1)
    waiting.cancel()
    await let_tasks_run()

    assert waiting.cancelled()
    async with asyncio.timeout(1):
        assert await slots.take(1) == 1
