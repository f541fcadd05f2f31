"""Equal pairs of requests in flight are computed once; later requests wait for the first.

A request joins another request's engine call only if that cannot delay it:

- the call is at least as urgent;
- the call has no more tokens than the request would have to compute itself;
- the call is of the same caller, or of a caller with no more calls in flight. Callers share the
  engine equally, so a caller with many calls gets less for each.

Pairs that it may not join are computed again. If a call ends early, the requests that joined it
compute the pairs themselves. Exception: a call that killed the engine (`PoisonRequest`) also fails
the requests that joined all of its pairs; each of them would kill the engine again.
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

# One engine call: pairs by key → logits by key, without the pairs that were not scored in time.
Compute = Callable[[Mapping[bytes, Prompt]], Awaitable[Mapping[bytes, float]]]


@dataclass(eq=False, slots=True)
class _EngineCall:
    """An engine call in flight that other requests may join.

    Attributes:
        caller: key and user of the request that computes it.
        tokens: of all its suffixes.
        pairs: number of its pairs.
        ended: set when it has ended, with or without success.
        logits: by key; empty until it has ended. Pairs not scored in time are missing.
        poison: the error, if the call killed the engine.
    """

    priority: int
    caller: str
    tokens: int
    pairs: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    logits: Mapping[bytes, float] = field(default_factory=dict)
    poison: PoisonRequest | None = None


class SingleFlight:
    """Computes each pair once at a time.

    logits = await single_flight.score({key: prompt}, compute, caller="team-a")
    """

    def __init__(self) -> None:
        self._in_flight: dict[bytes, _EngineCall] = {}
        self._calls_per_caller: Counter[str] = Counter()

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
        """Compute each pair, or wait for the request that computes it already.

        Args:
            pairs: prompts by their digest.
            compute: one engine call; applies `priority` and `deadline` itself.
            caller: key and user, between which the engine is shared fairly.
            priority: lower is sooner.
            deadline: `time.monotonic()` at which waiting for others ends.
            joins: whether this request may wait for others; others may wait for it in any case.

        Returns:
            Logits in nats, by key. Pairs that are not scored at the deadline are missing.

        Raises:
            PoisonRequest: `compute` raised it, or a call with only pairs of this request
                killed the engine.
        """
        tokens = _suffix_tokens(pairs)
        logits: dict[bytes, float] = {}
        in_time = True
        while in_time and (missing := {key: pairs[key] for key in pairs if key not in logits}):
            joined = self._joinable(missing, tokens, caller, priority) if joins else {}
            own = {key: pair for key, pair in missing.items() if key not in joined}
            if own:
                computed = await self._compute(own, compute, caller, priority)
                logits |= computed
                in_time = len(computed) == len(own)
            if joined:
                in_time = in_time and await _wait_until_ended(joined.values(), deadline)
                logits |= _joined_logits(joined)
        return logits

    def _joinable(
        self, missing: Iterable[bytes], tokens: int, caller: str, priority: int
    ) -> dict[bytes, _EngineCall]:
        """The calls in flight that compute missing pairs and do not delay this request."""
        return {
            key: call
            for key in missing
            if (call := self._in_flight.get(key)) is not None
            and call.priority <= priority
            and call.tokens <= tokens
            and self._is_served_as_soon(call.caller, caller)
        }

    def _is_served_as_soon(self, other: str, caller: str) -> bool:
        """Whether a call of `other` gets as large a share as one more call of `caller`."""
        if other == caller:
            return True
        return self._calls_per_caller[other] <= self._calls_per_caller[caller] + 1

    async def _compute(
        self, own: Mapping[bytes, Prompt], compute: Compute, caller: str, priority: int
    ) -> Mapping[bytes, float]:
        """Compute pairs in one call that other requests may join."""
        call = _EngineCall(priority, caller, _suffix_tokens(own), len(own))
        self._calls_per_caller[caller] += 1
        self._in_flight |= dict.fromkeys(own, call)
        try:
            call.logits = await compute(own)
        except PoisonRequest as problem:
            call.poison = problem
            raise
        finally:
            call.ended.set()
            self._calls_per_caller[caller] -= 1
            if not self._calls_per_caller[caller]:
                del self._calls_per_caller[caller]
            for key in own:
                if self._in_flight.get(key) is call:
                    del self._in_flight[key]
        return call.logits


async def _wait_until_ended(calls: Iterable[_EngineCall], deadline: float | None) -> bool:
    """Wait until all calls have ended; False: the deadline passed first."""
    timeout = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            for call in set(calls):
                await call.ended.wait()
    except TimeoutError:
        return False
    return True


def _joined_logits(joined: Mapping[bytes, _EngineCall]) -> dict[bytes, float]:
    """The logits that the joined calls have, by key."""
    for call, pairs in Counter(joined.values()).items():
        # Of a part of the call it is unknown whether it killed the engine.
        if call.poison is not None and pairs == call.pairs:
            raise PoisonRequest(call.poison.message)
    logits = {key: call.logits[key] for key, call in joined.items() if key in call.logits}
    metrics.COALESCED.inc(len(logits))
    return logits


def _suffix_tokens(pairs: Mapping[bytes, Prompt]) -> int:
    return sum(len(pair.suffix) for pair in pairs.values())
