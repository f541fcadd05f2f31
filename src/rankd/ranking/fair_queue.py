"""Which prompts are scored next: hierarchical start-time fair queueing over tokens.

Within one priority, keys get equal shares of the engine's tokens, then the users of one key, then
the calls of one user. Each of them carries a start tag: the tokens it was served so far. The
lowest tag is served next. A newcomer starts at the tag of those being served, so it gets no
credit for the time before. Source: Goyal, Vin and Cheng, "Start-time fair queueing"
(doi.org/10.1145/248156.248171), with the hierarchy of Goyal, Guo and Vin (OSDI 1996).

A call is served in slices of several prompts, because its prompts share a prefix that an engine
computes once per batch.

The most urgent priority is served first, but a share is reserved for the others: while lower
priorities wait, one token in 17 goes to them, in equal parts by the same rule. So no call starves.
A call of a lower priority is handed out completely after at most `AGEING_BOUND` * P * (W + C)
tokens and one batch. P is the number of lower priorities that wait, W the tokens of its own
priority up to its end, C the tokens of the longest prompt.

Pure bookkeeping: no clock, no event loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from rankd.types import Prompt

# Tokens of the most urgent priority per token of the lower priorities that wait.
_AGEING = 16

# Tokens served in all for each token that a lower priority is served; see the module docstring.
AGEING_BOUND = _AGEING + 1

# A call of more batches than this is large. While it waits, batches are smaller.
_LARGE_CALL_BATCHES = 4


class QueuedCall:
    """The prompts of one scoring call, handed out in their order.

    Args:
        prompts: N >= 1; prompts of one request share one `prefix` object.
        priority: lower is sooner.
        path: names that share the engine: the key, then the user of the key.
    """

    def __init__(
        self, prompts: Sequence[Prompt], *, priority: int = 0, path: Sequence[str] = ()
    ) -> None:
        self.prompts = prompts
        self.priority = priority
        self.path = path
        self.start_tag = 0
        self.waiting_tokens = sum(len(prompt.suffix) for prompt in prompts)
        self._next = 0
        self._prefix: tuple[int, ...] | None = None

    @property
    def waiting(self) -> int:
        """Prompts that are not handed out yet."""
        return len(self.prompts) - self._next

    def first(self) -> QueuedCall | None:
        """The call itself while it has prompts that wait, otherwise None."""
        return self if self._next < len(self.prompts) else None

    def cost(self) -> int:
        """Tokens to compute for the next prompt; its prefix counts only when it changes."""
        prompt = self.prompts[self._next]
        return len(prompt.suffix) + (0 if prompt.prefix is self._prefix else len(prompt.prefix))

    def remaining_cost(self) -> int:
        """Tokens to compute for all prompts that wait."""
        prefix, tokens = self._prefix, self.waiting_tokens
        for prompt in self.prompts[self._next :]:
            tokens += 0 if prompt.prefix is prefix else len(prompt.prefix)
            prefix = prompt.prefix
        return tokens

    def take(self) -> int:
        """Hand out the next prompt; returns its index."""
        index = self._next
        prompt = self.prompts[index]
        self.start_tag += self.cost()
        self.waiting_tokens -= len(prompt.suffix)
        self._prefix = prompt.prefix
        self._next += 1
        return index

    def abandon(self) -> None:
        """Hand out no more prompts."""
        self._next = len(self.prompts)
        self.waiting_tokens = 0


class _Flow(Protocol):
    start_tag: int


F = TypeVar("F", bound=_Flow)


class _FlowHeap(Generic[F]):
    """Flows by start tag; equal tags by arrival.

    Attributes:
        virtual_time: highest start tag that was served; newcomers start here.
    """

    def __init__(self) -> None:
        self.virtual_time = 0
        self._heap: list[tuple[int, int, F]] = []
        self._arrivals = itertools.count()

    def add(self, flow: F) -> None:
        flow.start_tag = self.virtual_time
        heapq.heappush(self._heap, (flow.start_tag, next(self._arrivals), flow))

    def first(self) -> F | None:
        return self._heap[0][2] if self._heap else None

    def remove_first(self) -> None:
        heapq.heappop(self._heap)

    def served_first(self, tag_before: int, *, keeps_turn: bool) -> None:
        """Note that the first flow was served; unless it keeps its turn, reorder it."""
        self.virtual_time = max(self.virtual_time, tag_before)
        if not keeps_turn:
            flow = self._heap[0][2]
            heapq.heapreplace(self._heap, (flow.start_tag, next(self._arrivals), flow))


class _Share:
    """The share of a key or user. Its children, users or calls, get equal parts of it.

    Attributes:
        debt: tokens served out of turn; added to the start tag at the next turn.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.start_tag = 0
        self.debt = 0
        self._children: dict[str, _Share] = {}
        self._flows: _FlowHeap[_Share | QueuedCall] = _FlowHeap()

    def add(self, call: QueuedCall, path: Sequence[str]) -> None:
        if not path:
            self._flows.add(call)
            return
        child = self._children.get(path[0])
        if child is None or child.first() is None:
            child = self._children[path[0]] = _Share(path[0])
            self._flows.add(child)
        child.add(call, path[1:])

    def first(self) -> QueuedCall | None:
        """The call to serve next; removes flows in front of it that are empty."""
        while (flow := self._flows.first()) is not None:
            call = flow.first()
            if call is not None:
                return call
            self._flows.remove_first()
            if isinstance(flow, _Share) and self._children.get(flow.name) is flow:
                del self._children[flow.name]
        return None

    def take(self, call: QueuedCall, path: Sequence[str], *, keeps_turn: bool) -> int:
        """Hand out the next prompt of the first call; it stays first if it keeps its turn."""
        cost = call.cost()
        if path:
            child = self._children[path[0]]
            tag_before = child.start_tag
            index = child.take(call, path[1:], keeps_turn=keeps_turn)
        else:
            tag_before = call.start_tag
            index = call.take()
        self._flows.served_first(tag_before, keeps_turn=keeps_turn)
        self.start_tag += cost + self.debt
        self.debt = 0
        return index

    def charge(self, path: Sequence[str], cost: int) -> None:
        """Charge the key and user of a call for tokens that it got out of turn."""
        if path:
            child = self._children[path[0]]
            child.debt += cost
            child.charge(path[1:], cost)


class _PriorityClass(_Share):
    """The calls of one priority.

    Args:
        slice_tokens: tokens of one call that are served before another call's.

    Attributes:
        reserve_tag: start tag in the reserved share of lower priorities.
    """

    def __init__(self, priority: int, reserve_tag: int, slice_tokens: int) -> None:
        super().__init__("")
        self.priority = priority
        self.reserve_tag = reserve_tag
        self._slice_tokens = slice_tokens
        self._current: QueuedCall | None = None
        self._slice_left = 0

    def take_next(self, call: QueuedCall) -> int:
        """Hand out the next prompt of the first call."""
        if call is not self._current:
            self._current, self._slice_left = call, self._slice_tokens
        self._slice_left -= call.cost()
        keeps_turn = self._slice_left > 0
        if not keeps_turn:
            self._current = None
        return self.take(call, call.path, keeps_turn=keeps_turn)


class FairQueue:
    """All calls that wait.

        queue.add(QueuedCall(prompts, priority=0, path=("team-a", "user-1")))
        batch = queue.next_batch(budget=1024)

    Args:
        slice_tokens: tokens of one call that are served before another call of its priority; at
            least one prompt.

    Attributes:
        tokens: suffix tokens of all prompts that wait.
    """

    def __init__(self, slice_tokens: int = 1) -> None:
        self.tokens = 0
        self._slice_tokens = slice_tokens
        self._classes: dict[int, _PriorityClass] = {}
        self._calls: set[QueuedCall] = set()
        self._served = 0
        self._reserved = 0  # Owed to lower priorities, in tokens times _AGEING.
        self._reserve_time = 0

    def add(self, call: QueuedCall) -> None:
        if call.priority not in self._classes:
            self._classes[call.priority] = _PriorityClass(
                call.priority, self._reserve_time, self._slice_tokens
            )
        self._classes[call.priority].add(call, call.path)
        self._calls.add(call)
        self.tokens += call.waiting_tokens

    def remove(self, call: QueuedCall) -> None:
        """Drop a call. Its entry in the heap is removed when it comes first."""
        self.tokens -= call.waiting_tokens
        self._calls.discard(call)
        call.abandon()

    def next_batch(self, budget: int) -> list[tuple[QueuedCall, int]]:
        """The next batch as (call, index of its prompt), of at most `budget` tokens.

        While a large call waits, batches are half as large, because a newcomer waits for the
        batches in flight. If all remaining prompts of a call in the batch fit into the rest of
        the budget, they are added.
        """
        if not any(call.waiting_tokens > _LARGE_CALL_BATCHES * budget for call in self._calls):
            return self.take(budget)
        served_before = self._served
        batch = self.take(budget // 2)
        calls = dict.fromkeys(call for call, _ in batch)
        return batch + self._take_rest(calls, budget - (self._served - served_before))

    def take(self, budget: int) -> list[tuple[QueuedCall, int]]:
        """Prompts of at most `budget` tokens in fair order; always one, even if it is longer."""
        batch: list[tuple[QueuedCall, int]] = []
        while (call := self._first()) is not None:
            cost = call.cost()
            if batch and cost > budget:
                break
            budget -= cost
            batch.append((call, self._take_one(call, cost)))
        return batch

    def _take_rest(self, calls: Iterable[QueuedCall], budget: int) -> list[tuple[QueuedCall, int]]:
        """The remaining prompts of each call whose remaining prompts all fit."""
        batch: list[tuple[QueuedCall, int]] = []
        for call in calls:
            if not call.waiting or call.waiting_tokens > budget:
                continue
            if (cost := call.remaining_cost()) > budget:
                continue
            budget -= cost
            self._account(call, cost)
            self._classes[call.priority].charge(call.path, cost)
            self.tokens -= call.waiting_tokens
            batch += [(call, call.take()) for _ in range(call.waiting)]
        return batch

    def _first(self) -> QueuedCall | None:
        """The call whose prompt is next."""
        urgent = self._most_urgent()
        lower = self._first_lower(urgent.priority) if urgent and len(self._classes) > 1 else None
        if lower is None:
            self._reserved = 0
            return urgent
        return lower if self._reserved >= _AGEING * lower.cost() else urgent

    def _most_urgent(self) -> QueuedCall | None:
        while self._classes:
            priority = min(self._classes)
            call = self._classes[priority].first()
            if call is not None:
                return call
            del self._classes[priority]
        return None

    def _first_lower(self, most_urgent: int) -> QueuedCall | None:
        """The first call of the lower priority that got least of the reserved share."""
        lower = [
            waiting
            for waiting in self._classes.values()
            if waiting.priority != most_urgent and waiting.first()
        ]
        return min(lower, key=lambda waiting: waiting.reserve_tag).first() if lower else None

    def _take_one(self, call: QueuedCall, cost: int) -> int:
        self._account(call, cost)
        self.tokens -= call.waiting_tokens
        index = self._classes[call.priority].take_next(call)
        self.tokens += call.waiting_tokens
        return index

    def _account(self, call: QueuedCall, cost: int) -> None:
        served = self._classes[call.priority]
        self._served += cost
        if call.priority == min(self._classes):
            self._reserved += cost
            # It gets nothing of the reserved share while it is the most urgent.
            served.reserve_tag = max(served.reserve_tag, self._reserve_time)
        else:
            self._reserved -= _AGEING * cost
            self._reserve_time = max(self._reserve_time, served.reserve_tag)
            served.reserve_tag += cost
