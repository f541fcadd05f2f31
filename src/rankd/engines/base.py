"""The engine contract: prompts in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from rankd.types import Prompt, RankRequest

# Whose the calls of this task are. No argument of `score`, because only an engine that
# keeps a queue of its own can do anything with it.
CALLER: ContextVar[str] = ContextVar("rankd.caller", default="")


def name_of(ask: RankRequest) -> str:
    """Who shares the engine fairly with others: the key, and below it the user."""
    return f"{ask.caller.replace('/', ' ')}/{ask.user}"


@contextmanager
def whose(ask: RankRequest) -> Iterator[None]:
    """Calls of `score` in this block are one caller's, or one of its users'."""
    before = CALLER.set(name_of(ask))
    try:
        yield
    finally:
        CALLER.reset(before)


# Is told of the logit of one prompt of a call, by its place.
Listener = Callable[[int, float], None]

# Who wants to hear of the logits of this task's calls as they come. No argument of `score`,
# because only whoever streams an answer has one, and engines may do without.
LISTENER: ContextVar[Listener | None] = ContextVar("rankd.listener", default=None)


@contextmanager
def heard_by(listener: Listener | None) -> Iterator[None]:
    """Logits of calls of `score` in this block are told of as they come.

    A call that is run again tells of the same places again.
    """
    before = LISTENER.set(listener)
    try:
        yield
    finally:
        LISTENER.reset(before)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself.

    Attributes:
        max_tokens: longest prompt it takes, head and tail together.
        version: of the library that computes, where one can be another's.
        deterministic: equal prompts have equal logits, to the last bit, whatever else it
            computes and however often it is started.
        arithmetic: what that holds for; with another one the last bits may be others.
    """

    name: str
    model: str
    revision: str
    device: str
    dtype: str
    max_tokens: int
    version: str = ""
    deterministic: bool = False
    arithmetic: str = ""


class Engine(Protocol):
    """An engine you hold is an engine that is ready.

    It is opened by the async context manager `open_engine` of its own module,
    which also frees its memory.
    """

    @property
    def info(self) -> EngineInfo: ...

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        """Score N prompts; batching across calls is the engine's own business.

        Args:
            prompts: N >= 1, each at most `info.max_tokens` long with a tail of at
                least one id. Prompts of one request share one head object.
            priority: lower is sooner, but nothing waits for ever; equal priorities share
                the engine fairly among callers, and then among their calls.
            deadline: `time.monotonic()` after which the answer is of no use.

        Returns:
            N logits, log p(yes) - log p(no) in nats, in the order of `prompts`.
            Rounding aside, no logit depends on its neighbours. Cancelling the
            call abandons its prompts. The task's `LISTENER`, where there is one, may
            be told of each of them before, and of none after the call has ended.

        Raises:
            EngineDown: it cannot answer this call or any other.
            DeadlineExceeded: the deadline passed before every prompt was scored; it
                carries the logits of those that were, in the order of `prompts`.
        """
        ...

    async def check(self) -> None:
        """Raise `EngineDown` when it cannot answer; cheap enough for a probe.

        Raises:
            EngineAway: not now, but perhaps soon; it is not dead.
        """
        ...
