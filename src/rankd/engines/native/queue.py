"""Who is next: lower priority first, then equal shares of tokens among calls.

Pure bookkeeping, without clock or event loop. Each call carries a `turn`, the tokens
it was served so far; the call with the lowest turn gives the next prompt, so a call
of five documents passes through a call of a thousand. A call that arrives late starts
at the turn of those being served: it owes nothing and is owed nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from rankd.types import Prompt


class Call:
    """One `score` call: its prompts, those not yet sent, the logits that came back."""

    def __init__(self, prompts: Sequence[Prompt], priority: int = 0) -> None:
        self.prompts = prompts
        self.priority = priority
        self.logits: list[float | None] = [None] * len(prompts)
        self.unanswered = len(prompts)
        self.turn = 0
        self._next = 0
        self._head: tuple[int, ...] | None = None
        self.waiting_tokens = sum(len(prompt.tail) for prompt in prompts)

    @property
    def waiting(self) -> int:
        return len(self.prompts) - self._next

    def cost(self) -> int:
        """Tokens to compute for the next prompt; its head counts when it is a new one."""
        prompt = self.prompts[self._next]
        return len(prompt.tail) + (0 if prompt.head is self._head else len(prompt.head))

    def take(self) -> int:
        """Hand out the next prompt, by its place in `prompts`."""
        place = self._next
        prompt = self.prompts[place]
        self.turn += self.cost()
        self.waiting_tokens -= len(prompt.tail)
        self._head = prompt.head
        self._next += 1
        return place

    def abandon(self) -> None:
        self._next = len(self.prompts)
        self.waiting_tokens = 0


@dataclass(slots=True)
class _Lane:
    """The calls of one priority, least served first."""

    heap: list[tuple[int, int, Call]] = field(default_factory=list)
    turn: int = 0


class Queue:
    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._arrivals = itertools.count()
        self.tokens = 0

    def add(self, call: Call) -> None:
        lane = self._lanes.setdefault(call.priority, _Lane())
        call.turn = lane.turn
        heapq.heappush(lane.heap, (call.turn, next(self._arrivals), call))
        self.tokens += call.waiting_tokens

    def drop(self, call: Call) -> None:
        """Forget what the call still has waiting; its place in the heap empties later."""
        self.tokens -= call.waiting_tokens
        call.abandon()

    def take(self, budget: int) -> list[tuple[Call, int]]:
        """The next batch: at most `budget` tokens, but one prompt however long it is."""
        batch: list[tuple[Call, int]] = []
        while (call := self._first()) is not None:
            cost = call.cost()
            if batch and cost > budget:
                break
            budget -= cost
            batch.append((call, self._advance(call)))
        return batch

    def _first(self) -> Call | None:
        while self._lanes:
            priority = min(self._lanes)
            heap = self._lanes[priority].heap
            while heap and not heap[0][2].waiting:
                heapq.heappop(heap)
            if heap:
                return heap[0][2]
            del self._lanes[priority]
        return None

    def _advance(self, call: Call) -> int:
        """Take one prompt of the first call of its lane, and put the call back in order."""
        lane = self._lanes[call.priority]
        lane.turn = call.turn
        self.tokens -= call.waiting_tokens
        place = call.take()
        self.tokens += call.waiting_tokens
        heapq.heapreplace(lane.heap, (call.turn, next(self._arrivals), call))
        return place
