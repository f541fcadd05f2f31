"""The engine contract: batches of prompts in, logits out.

An engine knows no priorities, callers or deadlines: `ranking/scheduler.py` decides which prompts
are scored next, on every engine.

    async with open_engine(checkpoint, answers, settings) as engine:
        logits = await engine.score([Prompt(prefix, suffix)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankd.types import Prompt


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself.

    Attributes:
        max_tokens: longest prompt it takes, prefix and suffix together.
        version: of the library that computes, where it is not rankd's own code.
        deterministic: equal prompts have equal logits to the last bit, whatever else is computed
            and however often the engine is started.
        arithmetic: the set-up that `deterministic` holds for.
        batch_tokens: tokens of one batch; a longer prompt is a batch of its own.
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
    batch_tokens: int = 1024


class Slots:
    """How many batches an engine takes at once. An engine may change it while it runs.

    Attributes:
        count: batches that `score` may be awaited for at once; 0 while the engine is away.
        eager: below so many batches in flight, a batch that is not full is useful: the engine
            would be idle, or it merges batches. Above it only full batches are.
    """

    def __init__(self, count: int, eager: int) -> None:
        self.count = count
        self.eager = eager
        self._listeners: list[Callable[[], None]] = []

    def set(self, count: int, eager: int) -> None:
        """Change the numbers and notify listeners, also when they are the same."""
        self.count = count
        self.eager = eager
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)


class PromptsTooLarge(Exception):
    """Some prompts of a batch do not fit in the device's memory, each alone.

    Attributes:
        logits: of the batch, in order; None for the prompts that do not fit.
    """

    def __init__(self, logits: Sequence[float | None]) -> None:
        super().__init__("prompts do not fit in memory")
        self.logits = tuple(logits)


class Engine(Protocol):
    """An engine that is ready. Its module's `open_engine` opens it and frees its memory."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def slots(self) -> Slots: ...

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        """Score one batch.

        Args:
            batch: N >= 1 prompts, each at most `info.max_tokens` long with a suffix of at least
                one id. Prompts of one request share one `prefix` object and stand together.

        Returns:
            N logits, log p(yes) - log p(no) in nats, in the order of the batch. Rounding aside,
            no logit depends on its neighbours. Cancelling the call abandons the batch.

        Raises:
            EngineDied: the engine died while it had this batch.
            EngineRestarting: the engine is away and has no slots; this batch was not computed.
            EngineDown: the engine cannot score any more.
            PromptsTooLarge: carries the logits of the prompts that fit.
        """
        ...

    async def check(self) -> None:
        """Raise when no score can be had now; cheap enough for a probe.

        Raises:
            EngineRestarting: not now, but soon.
            EngineDown: not any more.
        """
        ...
