"""Who is next: lower priority first, then equal shares of tokens among callers and calls.

Pure bookkeeping, without clock or event loop. Each call carries a `turn`, the tokens
it was served so far; the call with the lowest turn gives the next prompt, so a call
of five documents passes through a call of a thousand. A call that arrives late starts
at the turn of those being served: it owes nothing and is owed nothing. Callers take turns
in the same manner, so that one with a hundred calls gets no more than one with a single, and
so do the users below a caller, so that who names many of them gets no more either.

A turn is a slice of some prompts, not one: of a hundred calls that wait, each of which gave one
prompt to every batch, none would be done before all are, and no cache could keep their heads.

Nothing starves: of what a priority is served, a sixteenth is owed to those that wait
behind it, and goes to the one that was passed over for longest.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from rankd.engines.base import CALLER, LISTENER
from rankd.telemetry.timings import TURN
from rankd.types import Prompt

# Of the tokens served, one in so many is owed to lower priorities that wait.
_AGEING = 16

# Batches after which a call is one that others should not have to wait for.
_MANY = 4


class QueuedCall:
    """One `score` call: its prompts, those not yet sent, the logits that came back.

    Attributes:
        caller: whose it is; calls of one caller share that caller's share.
        listener: who wants to hear of each logit.
        waiter: who wants to know when the engine begins with it.
        path: the names in `caller`: users share what their key gets.
    """

    def __init__(
        self, prompts: Sequence[Prompt], priority: int = 0, caller: str | None = None
    ) -> None:
        self.prompts = prompts
        self.priority = priority
        self.caller = CALLER.get() if caller is None else caller
        self.path = self.caller.split("/", 1)
        self.logits: list[float | None] = [None] * len(prompts)
        self.listener = LISTENER.get()
        self.waiter = TURN.get()
        if self.waiter is not None:
            self.waiter.queues = True
        self.unanswered = len(prompts)
        self.turn = 0
        self._next = 0
        self._head: tuple[int, ...] | None = None
        self.waiting_tokens = sum(len(prompt.suffix) for prompt in prompts)

    @property
    def waiting(self) -> int:
        return len(self.prompts) - self._next

    def first(self) -> QueuedCall | None:
        """Itself, unless it waits for nothing any more."""
        return self if self._next < len(self.prompts) else None

    def cost(self) -> int:
        """Tokens to compute for the next prompt; its head counts when it is a new one."""
        prompt = self.prompts[self._next]
        return len(prompt.suffix) + (0 if prompt.prefix is self._head else len(prompt.prefix))

    def remaining(self) -> int:
        """As `cost`, of all prompts that wait."""
        head, tokens = self._head, self.waiting_tokens
        for prompt in self.prompts[self._next :]:
            tokens += 0 if prompt.prefix is head else len(prompt.prefix)
            head = prompt.prefix
        return tokens

    def take(self) -> int:
        """Hand out the next prompt, by its place in `prompts`."""
        place = self._next
        prompt = self.prompts[place]
        self.turn += self.cost()
        self.waiting_tokens -= len(prompt.suffix)
        self._head = prompt.prefix
        self._next += 1
        return place

    def abandon(self) -> None:
        self._next = len(self.prompts)
        self.waiting_tokens = 0


class _Member(Protocol):
    turn: int


M = TypeVar("M", bound=_Member)


class _Turns(Generic[M]):
    """Members that take turns, least served first.

    Attributes:
        turn: the furthest that any of them was when it was served; where newcomers start.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._heap: list[tuple[int, int, M]] = []
        self._arrivals = itertools.count()

    def add(self, member: M) -> None:
        member.turn = self.turn
        heapq.heappush(self._heap, (member.turn, next(self._arrivals), member))

    def first(self) -> M | None:
        return self._heap[0][2] if self._heap else None

    def dismiss(self) -> None:
        """Let go of the first one."""
        heapq.heappop(self._heap)

    def served(self, before: int, *, goes_on: bool) -> None:
        """The first one was served, whose turn was `before`; unless it goes on, others are next."""
        self.turn = max(self.turn, before)
        if not goes_on:
            member = self._heap[0][2]
            heapq.heapreplace(self._heap, (member.turn, next(self._arrivals), member))


class _Shares:
    """The calls of one name, and of the names below it, that get equal shares.

    Attributes:
        debt: tokens it was served out of turn, for which it waits at its next.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = 0
        self.debt = 0
        self._callers: dict[str, _Shares] = {}
        self._turns: _Turns[_Shares | QueuedCall] = _Turns()

    def add(self, call: QueuedCall, path: Sequence[str]) -> None:
        """Let a call wait below the names of a path."""
        if not path:
            self._turns.add(call)
            return
        caller = self._callers.get(path[0])
        if caller is None or caller.first() is None:
            caller = self._callers[path[0]] = _Shares(path[0])
            self._turns.add(caller)
        caller.add(call, path[1:])

    def first(self) -> QueuedCall | None:
        """The call whose turn it is; forgets those in front who wait for nothing any more."""
        while (member := self._turns.first()) is not None:
            call = member.first()
            if call is not None:
                return call
            self._turns.dismiss()
            if isinstance(member, _Shares) and self._callers.get(member.name) is member:
                del self._callers[member.name]
        return None

    def take(self, call: QueuedCall, path: Sequence[str], *, goes_on: bool) -> int:
        """Hand out the next prompt of the first call; it stays the first one if it goes on."""
        cost = call.cost()
        if path:
            caller = self._callers[path[0]]
            before = caller.turn
            place = caller.take(call, path[1:], goes_on=goes_on)
        else:
            before = call.turn
            place = call.take()
        self._turns.served(before, goes_on=goes_on)
        self.turn += cost + self.debt
        self.debt = 0
        return place

    def charge(self, path: Sequence[str], cost: int) -> None:
        """Let every name of a path wait for what one of its calls was served out of turn."""
        if path:
            caller = self._callers[path[0]]
            caller.debt += cost
            caller.charge(path[1:], cost)


class _Lane(_Shares):
    """The calls of one priority.

    Args:
        slice_tokens: served of a call before others are next.

    Attributes:
        served: when it was served last, in tokens of the whole queue.
    """

    def __init__(self, priority: int, now: int, slice_tokens: int) -> None:
        super().__init__("")
        self.priority = priority
        self.served = now
        self._slice_tokens = slice_tokens
        self._on: QueuedCall | None = None  # Whose slice it is, and what is left of it.
        self._left = 0

    def next_of(self, call: QueuedCall) -> int:
        """Hand out the next prompt of the first call, in slices."""
        if call is not self._on:
            self._on, self._left = call, self._slice_tokens
        self._left -= call.cost()
        goes_on = self._left > 0
        if not goes_on:
            self._on = None
        return self.take(call, call.path, goes_on=goes_on)


class Queue:
    """All calls that wait.

    Args:
        slice_tokens: served of a call before others of its priority are next; at least one
            prompt is.
    """

    def __init__(self, slice_tokens: int = 1) -> None:
        self._slice_tokens = slice_tokens
        self._lanes: dict[int, _Lane] = {}
        self._calls: set[QueuedCall] = set()
        self._served = 0
        self._owed = 0  # To lower priorities, in tokens times _AGEING.
        self.tokens = 0

    def add(self, call: QueuedCall) -> None:
        if call.priority not in self._lanes:
            self._lanes[call.priority] = _Lane(call.priority, self._served, self._slice_tokens)
        self._lanes[call.priority].add(call, call.path)
        self._calls.add(call)
        self.tokens += call.waiting_tokens

    def drop(self, call: QueuedCall) -> None:
        """Forget what the call still has waiting; its place in the heap empties later."""
        self.tokens -= call.waiting_tokens
        self._calls.discard(call)
        call.abandon()

    def next_batch(self, budget: int) -> list[tuple[QueuedCall, int]]:
        """As `take`, but smaller while a call waits that takes many batches.

        Whoever comes waits for the batches that are on their way and for its own. So these
        are half as large then, and a call that fits whole in what is left of the budget
        needs no second one.
        """
        if not any(call.waiting_tokens > _MANY * budget for call in self._calls):
            return self.take(budget)
        before = self._served
        batch = self.take(budget // 2)
        calls = dict.fromkeys(call for call, _ in batch)
        return batch + self._finished(calls, budget - (self._served - before))

    def take(self, budget: int) -> list[tuple[QueuedCall, int]]:
        """The next batch: at most `budget` tokens, but one prompt however long it is."""
        batch: list[tuple[QueuedCall, int]] = []
        while (call := self._first()) is not None:
            cost = call.cost()
            if batch and cost > budget:
                break
            budget -= cost
            batch.append((call, self._advance(call, cost)))
        return batch

    def _finished(self, calls: Iterable[QueuedCall], left: int) -> list[tuple[QueuedCall, int]]:
        """The last prompts of calls that fit whole."""
        batch: list[tuple[QueuedCall, int]] = []
        for call in calls:
            if not call.waiting or call.waiting_tokens > left or (cost := call.remaining()) > left:
                continue
            left -= cost
            self._account(call, cost)
            self._lanes[call.priority].charge(call.path, cost)
            self.tokens -= call.waiting_tokens
            batch += [(call, call.take()) for _ in range(call.waiting)]
        return batch

    def _first(self) -> QueuedCall | None:
        """The call whose prompt is next."""
        best = self._best()
        late = self._passed_over(best.priority) if best and len(self._lanes) > 1 else None
        if late is None:
            self._owed = 0
            return best
        return late if self._owed >= _AGEING * late.cost() else best

    def _best(self) -> QueuedCall | None:
        while self._lanes:
            priority = min(self._lanes)
            call = self._lanes[priority].first()
            if call is not None:
                return call
            del self._lanes[priority]
        return None

    def _passed_over(self, best: int) -> QueuedCall | None:
        """Of the lower priorities, the first call of the one that was served longest ago."""
        lanes = [lane for lane in self._lanes.values() if lane.priority != best and lane.first()]
        return min(lanes, key=lambda lane: lane.served).first() if lanes else None

    def _advance(self, call: QueuedCall, cost: int) -> int:
        """Take one prompt of a call that is the first of its lane, and put it back in order."""
        self._account(call, cost)
        self.tokens -= call.waiting_tokens
        place = self._lanes[call.priority].next_of(call)
        self.tokens += call.waiting_tokens
        return place

    def _account(self, call: QueuedCall, cost: int) -> None:
        is_late = call.priority != min(self._lanes)
        self._owed += -_AGEING * cost if is_late else cost
        self._served += cost
        self._lanes[call.priority].served = self._served
