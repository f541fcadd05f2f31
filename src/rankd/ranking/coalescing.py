"""Equal pairs of different requests are computed once while the first is under way.

Who may wait for whom: a request waits for a call of the engine that is at least as urgent as
itself, no longer than what it would have to compute itself, and its own caller's or that of one
who has no more calls under way. So nobody is held up by a less urgent request, nor a short one by
a long one, nor a caller of few by one of many, who share the engine equally; what that rule does
not let it share, it computes again. A call that ends early, for whatever reason, is nobody else's
loss: who waited for it computes for itself. But a call that ended the engine ends all who asked
for everything that is in it: each who computed it again would end the engine again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rankd.errors import PoisonRequest
from rankd.telemetry import metrics
from rankd.types import Prompt

# One call of the engine: logits for pairs, by their keys; of those that were scored in time.
Compute = Callable[[Mapping[bytes, Prompt]], Awaitable[Mapping[bytes, float]]]


@dataclass(eq=False, slots=True)
class _Flight:
    """A call of the engine that is under way.

    Attributes:
        caller: who began it.
        tokens: of the whole call, heads left out.
        pairs: of the whole call.
        logits: empty until it has landed; lacks for ever what was not scored in time.
        poison: why nobody else shall compute the same.
    """

    priority: int
    caller: str
    tokens: int
    pairs: int
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    logits: Mapping[bytes, float] = field(default_factory=dict)
    poison: PoisonRequest | None = None


class SingleFlight:
    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}
        self._calls: Counter[str] = Counter()  # Under way, of each caller.

    async def score(
        self,
        pairs: Mapping[bytes, Prompt],
        compute: Compute,
        *,
        caller: str = "",
        priority: int = 0,
        deadline: float | None = None,
        joins: bool = True,
    ) -> dict[bytes, float]:
        """A logit for each pair, computed here or by a request that came before.

        What is not there when the deadline passes is left out.

        Args:
            compute: keeps `priority` and `deadline` itself.
            caller: with whom the engine's time is shared fairly.
            joins: whether to wait for others at all; they may wait for this one in any case.

        Raises:
            PoisonRequest: as `compute`, or a call whose every pair is among these ended the
                engine.
        """
        tokens = _tokens(pairs)
        logits: dict[bytes, float] = {}
        in_time = True
        while in_time and (missing := {key: pairs[key] for key in pairs if key not in logits}):
            joined = self._joined(missing, tokens, caller, priority) if joins else {}
            own = {key: pair for key, pair in missing.items() if key not in joined}
            if own:
                computed = await self._lead(own, compute, caller, priority)
                logits |= computed
                in_time = len(computed) == len(own)
            if joined:
                in_time = in_time and await _landed(joined.values(), deadline)
                logits |= _shared(joined)
        return logits

    def _joined(
        self, missing: Iterable[bytes], tokens: int, caller: str, priority: int
    ) -> dict[bytes, _Flight]:
        """Of what is missing, what others compute soon enough."""
        return {
            key: flight
            for key in missing
            if (flight := self._flights.get(key)) is not None
            and flight.priority <= priority
            and flight.tokens <= tokens
            and self._is_served_as_soon(flight.caller, caller)
        }

    def _is_served_as_soon(self, other: str, caller: str) -> bool:
        """Whether the other's calls get as large a share of the engine as one more of the caller's.

        A caller's calls share what the caller gets.
        """
        return other == caller or self._calls[other] <= self._calls[caller] + 1

    async def _lead(
        self, own: Mapping[bytes, Prompt], compute: Compute, caller: str, priority: int
    ) -> Mapping[bytes, float]:
        flight = _Flight(priority, caller, _tokens(own), len(own))
        self._calls[caller] += 1
        self._flights |= dict.fromkeys(own, flight)
        try:
            flight.logits = await compute(own)
        except PoisonRequest as problem:
            flight.poison = problem
            raise
        finally:
            flight.landed.set()
            self._calls[caller] -= 1
            if not self._calls[caller]:
                del self._calls[caller]
            for key in own:
                if self._flights.get(key) is flight:
                    del self._flights[key]
        return flight.logits


async def _landed(flights: Iterable[_Flight], deadline: float | None) -> bool:
    """Wait until all of them have ended, well or not; false when the deadline passes first."""
    timeout = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            for flight in set(flights):
                await flight.landed.wait()
    except TimeoutError:
        return False
    return True


def _shared(joined: Mapping[bytes, _Flight]) -> dict[bytes, float]:
    """What the flights have scored of the keys."""
    for flight, pairs in Counter(joined.values()).items():
        # Of a part of it nobody knows whether it did the harm.
        if flight.poison is not None and pairs == flight.pairs:
            raise PoisonRequest(flight.poison.message)
    logits = {key: flight.logits[key] for key, flight in joined.items() if key in flight.logits}
    metrics.COALESCED.inc(len(logits))
    return logits


def _tokens(pairs: Mapping[bytes, Prompt]) -> int:
    return sum([len(pair.suffix) for pair in pairs.values()])
