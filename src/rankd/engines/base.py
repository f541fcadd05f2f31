"""The engine contract: prompts in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rankd.types import Prompt


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself.

    Attributes:
        max_tokens: longest prompt it takes, head and tail together.
        version: of the library that computes, where one can be another's.
    """

    name: str
    model: str
    revision: str
    device: str
    dtype: str
    max_tokens: int
    version: str = ""


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
            priority: lower is sooner; equal priorities share the engine fairly.
            deadline: `time.monotonic()` after which the answer is of no use.

        Returns:
            N logits, log p(yes) - log p(no) in nats, in the order of `prompts`.
            Rounding aside, no logit depends on its neighbours. Cancelling the
            call abandons its prompts.

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
