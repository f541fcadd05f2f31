"""Room for so much at a time, given out in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A semaphore of which some take more than one.

    Args:
        count: how many there are; who wants more takes all of them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for so many; returns how many are to be given back."""
        wanted = min(wanted, self._count)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(wanted)
            else:
                self._waiting.remove((wanted, turn))
                self._serve()
            raise
        return wanted

    def give(self, back: int) -> None:
        self._free += back
        self._serve()

    def _serve(self) -> None:
        """The first in the row goes first, or else a large one would never go."""
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
