"""Equal pairs of different requests are computed once while the first is under way.

Who may wait for whom: a request waits for a call of the engine that is at least as urgent as
itself and no longer than what it would have to compute itself. So nobody is held up by a less
urgent request, nor a short one by a long one; what that rule does not let it share, it computes
again. A call that ends early, for whatever reason, is nobody else's loss: who waited for it
computes for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rankd import metrics
from rankd.errors import DeadlineExceeded
from rankd.types import Prompt

# One call of the engine: logits for pairs, by their keys.
Compute = Callable[[Mapping[bytes, Prompt]], Awaitable[Mapping[bytes, float]]]


@dataclass(eq=False, slots=True)
class _Flight:
    """A call of the engine that is under way.

    Attributes:
        tokens: of the whole call, heads left out.
        logits: empty until it has landed, and for ever when it ended early.
    """

    priority: int
    tokens: int
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    logits: Mapping[bytes, float] = field(default_factory=dict)


class Flights:
    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}

    async def score(
        self,
        pairs: Mapping[bytes, Prompt],
        compute: Compute,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> dict[bytes, float]:
        """A logit for each pair, computed here or by a request that came before.

        Args:
            compute: keeps `priority` and `deadline` itself.

        Raises:
            DeadlineExceeded: the deadline passed while another request computed.
        """
        tokens = _tokens(pairs)
        logits: dict[bytes, float] = {}
        while missing := {key: pair for key, pair in pairs.items() if key not in logits}:
            joined = self._joined(missing, tokens, priority)
            own = {key: pair for key, pair in missing.items() if key not in joined}
            if own:
                logits |= await self._lead(own, compute, priority)
            if joined:
                await _landed(joined.values(), deadline, len(logits), len(pairs))
                shared = {
                    key: flight.logits[key] for key, flight in joined.items() if flight.logits
                }
                metrics.COALESCED.inc(len(shared))
                logits |= shared
        return logits

    def _joined(self, missing: Iterable[bytes], tokens: int, priority: int) -> dict[bytes, _Flight]:
        """Of what is missing, what others compute soon enough."""
        return {
            key: flight
            for key in missing
            if (flight := self._flights.get(key)) is not None
            and flight.priority <= priority
            and flight.tokens <= tokens
        }

    async def _lead(
        self, own: Mapping[bytes, Prompt], compute: Compute, priority: int
    ) -> Mapping[bytes, float]:
        flight = _Flight(priority, _tokens(own))
        self._flights |= dict.fromkeys(own, flight)
        try:
            flight.logits = await compute(own)
        finally:
            flight.landed.set()
            for key in own:
                if self._flights.get(key) is flight:
                    del self._flights[key]
        return flight.logits


async def _landed(
    flights: Iterable[_Flight], deadline: float | None, scored: int, wanted: int
) -> None:
    """Wait until all of them have ended, well or not."""
    timeout = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            for flight in set(flights):
                await flight.landed.wait()
    except TimeoutError:
        raise DeadlineExceeded(f"scored {scored} of {wanted} documents in time") from None


def _tokens(pairs: Mapping[bytes, Prompt]) -> int:
    return sum(len(pair.tail) for pair in pairs.values())
