"""Slots are given in the order of asking, and come back whoever leaves."""

from __future__ import annotations

import asyncio

import pytest

from rankd.batches.slots import Slots

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_large_one_waits_for_all_and_is_not_overtaken() -> None:
    slots = Slots(4)
    order: list[str] = []

    async def take(name: str, wanted: int) -> int:
        taken = await slots.take(wanted)
        order.append(name)
        return taken

    first = await take("first", 2)
    large = asyncio.create_task(take("large", 99))
    await turn()
    small = asyncio.create_task(take("small", 1))
    await turn()
    assert order == ["first"]

    slots.give(first)
    await turn()
    assert order == ["first", "large"]
    assert await large == 4

    slots.give(4)
    assert await small == 1
    assert order == ["first", "large", "small"]


async def test_who_is_cancelled_while_waiting_lets_the_next_one_in() -> None:
    slots = Slots(2)
    await slots.take(1)
    large, small = (asyncio.create_task(slots.take(wanted)) for wanted in (2, 1))
    await turn()

    large.cancel()
    await turn()

    assert large.cancelled()
    assert await small == 1


async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_back() -> None:
    slots = Slots(1)
    await slots.take(1)
    waiting = asyncio.create_task(slots.take(1))
    await turn()

    slots.give(1)
    waiting.cancel()
    await turn()

    assert waiting.cancelled()
    async with asyncio.timeout(1):
        assert await slots.take(1) == 1
