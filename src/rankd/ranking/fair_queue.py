"""Which prompts are scored next: hierarchical start-time fair queueing over tokens.

Within one priority, keys get equal shares of the engine's tokens, then the users of one key, then
the calls of one user. Each of them carries a start tag: the tokens it was served so far. The
lowest tag is served next; a newcomer starts at the tag of those being served, so it is owed
nothing for the time it was away. Source: Goyal, Vin and Cheng, "Start-time fair queueing"
(doi.org/10.1145/248156.248171), with the hierarchy of Goyal, Guo and Vin (OSDI 1996).

A call is served in slices of several prompts, because its prompts share a prefix that an engine
computes once per batch.

Priorities age by a reserved share. While lower priorities wait, one token in 17 goes to them, in
equal shares by the same rule. Hence no call starves: a call of a lower priority is
handed out after at most `AGEING_BOUND` * P * (W + C) tokens and one batch, where P is the number
of lower priorities that wait, W the tokens of its own priority that go before it, itself included,
and C the tokens of the longest prompt.

Pure bookkeeping: no clock, no event loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rankd.types import Prompt

# So many tokens of the most urgent priority for one of the lower priorities that wait.
_AGEING = 16

# Tokens served in all for each token that a lower priority is served; see the module docstring.
AGEING_BOUND = _AGEING + 1

# While more batches than this wait, batches may be short.
_MANY_BATCHES = 4


class Run(NamedTuple):
    """Prompts of one call that are handed out together.

    Attributes:
        indexes: of the prompts in their call.
        cost: tokens to compute for them.
        last_cost: of these, for the last one.
    """

    indexes: range
    cost: int
    last_cost: int


class QueuedCall:
    """The prompts of one scoring call, handed out in their order.

    Args:
        prompts: N >= 1; prompts of one request share one `prefix` object.
        priority: lower is sooner.
        path: who shares the engine with others: the key, then its user.
    """

    def __init__(
        self, prompts: Sequence[Prompt], *, priority: int = 0, path: Sequence[str] = ()
    ) -> None:
        self.prompts = prompts
        self.priority = priority
        self.path = path
        self.start_tag = 0
        self.waiting_tokens = sum([len(prompt.suffix) for prompt in prompts])
        self._next = 0
        self._prefix: tuple[int, ...] | None = None

    @property
    def waiting(self) -> int:
        """Prompts that were not handed out."""
        return len(self.prompts) - self._next

    def first(self) -> QueuedCall | None:
        """The call itself while prompts of it wait, else None."""
        return self if self._next < len(self.prompts) else None

    def cost(self) -> int:
        """Tokens to compute for the next prompt; a prefix counts where it changes."""
        prompt = self.prompts[self._next]
        return len(prompt.suffix) + (0 if prompt.prefix is self._prefix else len(prompt.prefix))

    def remaining_cost(self) -> int:
        """Tokens to compute for all prompts that wait."""
        prefix, tokens = self._prefix, self.waiting_tokens
        for prompt in self.prompts[self._next :]:
            tokens += 0 if prompt.prefix is prefix else len(prompt.prefix)
            prefix = prompt.prefix
        return tokens

    def take(self, tokens: int, *, slice_tokens: int, at_least_one: bool) -> Run:
        """Hand out the next prompts.

        Args:
            tokens: for all of them at most.
            slice_tokens: no more prompts once they have so many tokens.
            at_least_one: take the first prompt, even if it has more than `tokens`.
        """
        begin, cost, last_cost = self._next, 0, 0
        while self._next < len(self.prompts) and cost < slice_tokens:
            prompt = self.prompts[self._next]
            size = len(prompt.suffix)
            next_cost = size if prompt.prefix is self._prefix else size + len(prompt.prefix)
            if cost + next_cost > tokens and not (at_least_one and self._next == begin):
                break
            cost, last_cost = cost + next_cost, next_cost
            self.waiting_tokens -= size
            self._prefix = prompt.prefix
            self._next += 1
        self.start_tag += cost
        return Run(range(begin, self._next), cost, last_cost)

    def abandon(self) -> None:
        """Hand out no more prompts."""
        self._next = len(self.prompts)
        self.waiting_tokens = 0


class _Share:
    """Calls and named shares below one name; each gets an equal part of what the name gets.

    Attributes:
        debt: tokens served out of turn; added to the start tag at the next turn.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.start_tag = 0
        self.debt = 0
        self._children: dict[str, _Share] = {}
        # By start tag; equal tags by arrival.
        self._flows: list[tuple[int, int, _Share | QueuedCall]] = []
        self._arrivals = itertools.count()
        # Highest start tag that was served; where newcomers start.
        self._virtual_time = 0

    def add(self, call: QueuedCall, path: Sequence[str]) -> None:
        flow: _Share | QueuedCall = call
        if path:
            child = self._children.get(path[0])
            if child is not None and child.first() is not None:
                child.add(call, path[1:])
                return
            flow = child = self._children[path[0]] = _Share(path[0])
            child.add(call, path[1:])
        flow.start_tag = self._virtual_time
        heapq.heappush(self._flows, (flow.start_tag, next(self._arrivals), flow))

    def first(self) -> QueuedCall | None:
        """The call to serve next; removes flows in front of it that are empty."""
        while self._flows:
            flow = self._flows[0][2]
            call = flow.first()
            if call is not None:
                return call
            heapq.heappop(self._flows)
            if isinstance(flow, _Share) and self._children.get(flow.name) is flow:
                del self._children[flow.name]
        return None

    def serve(self, run: Run, path: Sequence[str], *, keeps_turn: bool) -> None:
        """Note that the first call was served; it stays first if it keeps its turn."""
        flow = self._flows[0][2]
        tag_before = flow.start_tag
        if isinstance(flow, QueuedCall):
            tag_before -= run.cost  # It has counted the run itself.
        else:
            flow.serve(run, path[1:], keeps_turn=keeps_turn)
        if len(run.indexes) > 1:
            tag_before = flow.start_tag - run.last_cost
        self._virtual_time = max(self._virtual_time, tag_before)
        if not keeps_turn:
            entry = (flow.start_tag, next(self._arrivals), flow)
            heapq.heapreplace(self._flows, entry)
        self.start_tag += run.cost + self.debt
        self.debt = 0

    def charge(self, path: Sequence[str], cost: int) -> None:
        """Charge every name of a path for tokens that one of its calls got out of turn."""
        if path:
            child = self._children[path[0]]
            child.debt += cost
            child.charge(path[1:], cost)


class _PriorityClass(_Share):
    """The calls of one priority.

    Args:
        slice_tokens: tokens of a call before another one is served.

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

    def take(self, call: QueuedCall, tokens: int, *, one: bool, at_least_one: bool) -> Run:
        """Hand out the next prompts of the first call: one, or those of its slice."""
        if call is not self._current:
            self._current, self._slice_left = call, self._slice_tokens
        run = call.take(
            tokens, slice_tokens=1 if one else self._slice_left, at_least_one=at_least_one
        )
        self._slice_left -= run.cost
        keeps_turn = self._slice_left > 0
        if not keeps_turn:
            self._current = None
        if run.indexes:
            self.serve(run, call.path, keeps_turn=keeps_turn)
        return run


class FairQueue:
    """All calls that wait.

    Args:
        slice_tokens: tokens of a call before another one of its priority is served; at least
            one prompt is.

    Attributes:
        tokens: suffix tokens of all prompts that wait.
    """

    def __init__(self, slice_tokens: int = 1) -> None:
        self.tokens = 0
        self._slice_tokens = slice_tokens
        self._classes: dict[int, _PriorityClass] = {}
        self._served = 0
        self._reserved = 0  # Owed to lower priorities, in tokens times _AGEING.
        self._reserve_time = 0

    def add(self, call: QueuedCall) -> None:
        if call.priority not in self._classes:
            self._classes[call.priority] = _PriorityClass(
                call.priority, self._reserve_time, self._slice_tokens
            )
        self._classes[call.priority].add(call, call.path)
        self.tokens += call.waiting_tokens

    def remove(self, call: QueuedCall) -> None:
        """Hand out no more of a call. Its entry in the heap is removed when it comes first."""
        self.tokens -= call.waiting_tokens
        call.abandon()

    def next_batch(self, budget: int, *, short: bool = True) -> list[tuple[QueuedCall, int]]:
        """The next batch as (call, index of its prompt), of at most `budget` tokens.

        Args:
            short: while many batches wait, make this one half as large, because newcomers wait
                for the batches in flight. A call whose remaining prompts fit into the other half
                is still finished in it.
        """
        if not short or self.tokens <= _MANY_BATCHES * budget:
            return self.take(budget)
        served_before = self._served
        batch = self.take(budget // 2)
        calls = dict.fromkeys(call for call, _ in batch)
        return batch + self._take_rest(calls, budget - (self._served - served_before))

    def take(self, budget: int) -> list[tuple[QueuedCall, int]]:
        """At most `budget` tokens in fair order; one prompt even if it is longer."""
        batch: list[tuple[QueuedCall, int]] = []
        while self.tokens and (call := self._first()) is not None:
            # While lower priorities wait, their turn may come after each prompt.
            run = self._classes[call.priority].take(
                call, budget, one=len(self._classes) > 1, at_least_one=not batch
            )
            if not run.indexes:
                return batch
            self._account(call, run)
            budget -= run.cost
            batch += [(call, index) for index in run.indexes]
        if not self.tokens:
            # Who comes later is owed nothing.
            self._classes.clear()
            self._reserved = 0
        return batch

    def _take_rest(self, calls: Iterable[QueuedCall], budget: int) -> list[tuple[QueuedCall, int]]:
        """The remaining prompts of the calls that fit whole."""
        batch: list[tuple[QueuedCall, int]] = []
        for call in calls:
            if not call.waiting or call.waiting_tokens > budget:
                continue
            if (cost := call.remaining_cost()) > budget:
                continue
            budget -= cost
            self._classes[call.priority].charge(call.path, cost)
            run = call.take(cost, slice_tokens=cost, at_least_one=True)
            self._account(call, run)
            batch += [(call, index) for index in run.indexes]
        return batch

    def _first(self) -> QueuedCall | None:
        """The call whose prompt is next."""
        best = self._most_urgent()
        late = self._passed_over(best.priority) if best and len(self._classes) > 1 else None
        if late is None:
            self._reserved = 0
            return best
        return late if self._reserved >= _AGEING * late.cost() else best

    def _most_urgent(self) -> QueuedCall | None:
        while self._classes:
            priority = min(self._classes)
            call = self._classes[priority].first()
            if call is not None:
                return call
            del self._classes[priority]
        return None

    def _passed_over(self, best: int) -> QueuedCall | None:
        """The first call of the lower priority that got least of the reserved share."""
        lower = [one for one in self._classes.values() if one.priority != best and one.first()]
        return min(lower, key=lambda one: one.reserve_tag).first() if lower else None

    def _account(self, call: QueuedCall, run: Run) -> None:
        served = self._classes[call.priority]
        self._served += run.cost
        self.tokens -= sum(len(call.prompts[index].suffix) for index in run.indexes)
        if call.priority == min(self._classes):
            self._reserved += run.cost
            # It earns nothing of the reserved share while it is the most urgent.
            served.reserve_tag = max(served.reserve_tag, self._reserve_time)
        else:
            self._reserved -= _AGEING * run.cost
            self._reserve_time = max(self._reserve_time, served.reserve_tag)
            served.reserve_tag += run.cost
