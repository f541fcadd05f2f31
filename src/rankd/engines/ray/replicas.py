"""The replicas that a front uses. Nothing here knows Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rankd.engines.ray.protocol import ReplicaFacts
from rankd.telemetry import metrics

_log = logging.getLogger("rankd")


class ReplicaGone(Exception):
    """The call did not end, because the replica died or cannot be reached.

    Attributes:
        for_good: it is dead; otherwise it may answer again.
    """

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Remote(Protocol):
    """Calls the methods of one replica."""

    def call(self, method: str, *arguments: Any) -> Awaitable[Any]:
        """The answer; cancelling it cancels the call in the replica. Raises `ReplicaGone`."""
        ...


@dataclass(eq=False, slots=True)
class Replica:
    """One replica.

    Attributes:
        name: of Serve, short enough for a label.
        slots, eager: of its engine; 0 while that restarts.
        outstanding: tokens that this front has sent and not got back.
        batches: what it has of this front.
        pinged: `time.monotonic()` of the ping that is not answered; None: there is none.
        is_silent: it did not answer a ping in time, or cannot be reached. It may answer again.
        is_dead: it does not come back.
    """

    name: str
    remote: Remote
    facts: ReplicaFacts
    slots: int
    eager: int
    outstanding: int = 0
    batches: set[RemoteBatch] = field(default_factory=set)
    pinged: float | None = None
    is_silent: bool = False
    is_dead: bool = False

    @property
    def takes_batches(self) -> bool:
        return bool(self.slots) and not self.is_silent and not self.is_dead


@dataclass(eq=False, slots=True)
class RemoteBatch:
    """A batch at one replica, or at several if the first one hangs.

    Attributes:
        body: the prompts, packed.
        tokens: numbers in the body; nearly all of them are token ids.
        request_ids: of its requests, for the replica's log.
        reply: the logits; or has what the batch failed with.
        calls: the replicas that have it.
    """

    body: bytes
    tokens: int
    request_ids: str
    reply: asyncio.Future[list[float | None]]
    calls: dict[Replica, asyncio.Task[None]] = field(default_factory=dict)

    def fail(self, problem: BaseException) -> None:
        """Fail, unless another replica has it, too."""
        if not self.calls and not self.reply.done():
            self.reply.set_exception(problem)

    def answer(self, logits: list[float | None]) -> None:
        if not self.reply.done():
            self.reply.set_result(logits)

    def end(self) -> None:
        """Cancel the calls that still run."""
        for task in self.calls.values():
            task.cancel()


class ReplicaSet:
    """The replicas of one deployment that may score for this front.

    Args:
        refusal: why this front cannot use a replica; empty: it can.
        on_change: called when the number of slots may have changed.
    """

    def __init__(
        self,
        refusal: Callable[[ReplicaFacts], str],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._refusal = refusal
        self.on_change = on_change
        self.by_name: dict[str, Replica] = {}
        self.refused: dict[str, str] = {}
        self._dead: set[str] = set()
        self.standard: ReplicaFacts | None = None

    def update(self, listed: Mapping[str, tuple[Remote, Mapping[str, Any]]]) -> None:
        """Take over the list of replicas that Serve runs.

        Args:
            listed: each replica's calls and its facts in JSON, by name.
        """
        for name in [name for name in self.by_name if name not in listed]:
            # What it has is still awaited: Serve lets it finish.
            del self.by_name[name]
            metrics.RAY_TOKENS.remove(name)
        self.refused = {name: why for name, why in self.refused.items() if name in listed}
        self._dead &= listed.keys()
        for name, (remote, facts) in listed.items():
            if name not in self.by_name and name not in self.refused and name not in self._dead:
                self._admit(name, remote, ReplicaFacts.of_json(facts))
        self.on_change()

    def _admit(self, name: str, remote: Remote, facts: ReplicaFacts) -> None:
        why = self._refusal(facts) or (self.standard and facts.difference(self.standard))
        if why:
            self.refused[name] = why
            _log.error("replica %s on %s is not used: %s", name, facts.node, why)
            return
        self.standard = self.standard or facts
        self.by_name[name] = Replica(name, remote, facts, facts.slots, facts.eager)
        metrics.RAY_TOKENS.labels(name)
        _log.info("replica %s on %s is used", name, facts.node)

    def mark_dead(self, replica: Replica) -> None:
        replica.is_dead = True
        self._dead.add(replica.name)
        if self.by_name.pop(replica.name, None) is not None:
            metrics.RAY_TOKENS.remove(replica.name)

    @property
    def ready(self) -> list[Replica]:
        """Those that take batches now."""
        return [replica for replica in self.by_name.values() if replica.takes_batches]

    def least_loaded(self, besides: Collection[Replica] = ()) -> Replica | None:
        """The replica with the fewest outstanding tokens; None if there is none."""
        able = [replica for replica in self.ready if replica not in besides]
        return min(able, key=_outstanding, default=None)


def _outstanding(replica: Replica) -> int:
    return replica.outstanding
