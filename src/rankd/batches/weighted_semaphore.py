"""A semaphore with weights: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class WeightedSemaphore:
    """Limits the work in flight.

    Args:
        count: all slots; a caller that wants more takes all of them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for `wanted` slots; returns how many to give back."""
        wanted = min(wanted, self._count)
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(wanted)
            else:
                self._waiting.remove((wanted, granted))
                self._grant()
            raise
        return wanted

    def give(self, taken: int) -> None:
        """Give slots back."""
        self._free += taken
        self._grant()

    def _grant(self) -> None:
        """Serve the first caller first; small ones would overtake a large one forever."""
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, granted = self._waiting.popleft()
            self._free -= wanted
            granted.set_result(None)
