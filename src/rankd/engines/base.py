"""The engine contract: batches of prompts in, logits out.

An engine has no priorities, callers or deadlines: `ranking/scheduler.py` decides which prompts are
scored next, on every engine.

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
    """Properties of an open engine.

    Attributes:
        name: the engine's name in the registry, such as `native`.
        model, revision: the checkpoint's name and revision.
        device, dtype: as the library names them.
        dtype_reason: why the dtype was chosen, for people; empty if the library chose it.
        max_tokens: maximum length of a prompt, prefix and suffix together.
        version: of the library that computes; empty if it is rankd's own code.
        deterministic: equal prompts have bit-identical logits, in any batch and after restarts.
        arithmetic: kernels and threads for which `deterministic` holds.
        batch_tokens: maximum tokens of a batch; a longer prompt is a batch of its own.
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
    dtype_reason: str = ""

    @property
    def summary(self) -> str:
        """For people: name, version, device, dtype and why this dtype."""
        reason = f" ({self.dtype_reason})" if self.dtype_reason else ""
        return f"{self.name} {self.version}".rstrip() + f" on {self.device}, {self.dtype}{reason}"


class Slots:
    """How many batches an engine takes at once. The engine may change it while it runs.

    Attributes:
        count: maximum batches in flight, that is concurrent calls of `score`; 0 while the engine
            restarts.
        eager: while fewer batches are in flight, partly filled batches are sent too, because the
            engine would be idle or merges batches. From this number on only full ones are.
        replicas: how many batches are computed at the same time, each as fast as a single one.
        waiting_tokens: tokens that wait for a slot; the scheduler sets it.
    """

    def __init__(self, count: int, eager: int) -> None:
        self.count = count
        self.eager = eager
        self.replicas = 1
        self.waiting_tokens: Callable[[], int] = int
        self._listeners: list[Callable[[], None]] = []

    def set(self, count: int, eager: int, replicas: int = 1) -> None:
        """Change the numbers and notify listeners, also when they are the same."""
        self.count = count
        self.eager = eager
        self.replicas = replicas
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)


class PromptsTooLarge(Exception):
    """Some prompts of a batch do not fit in the device's memory, even alone.

    Attributes:
        logits: in the order of the batch; None for the prompts that do not fit.
    """

    def __init__(self, logits: Sequence[float | None]) -> None:
        super().__init__("prompts do not fit in memory")
        self.logits = tuple(logits)


class Engine(Protocol):
    """An engine that is ready. Its module's `open_engine` starts it and frees its memory."""

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
            no logit depends on the other prompts. Cancelling the call abandons the batch.

        Raises:
            EngineDied: the engine died while it had this batch.
            EngineRestarting: the engine restarts and has no slots; this batch was not computed.
            EngineDown: the engine is down and not restarted.
            PromptsTooLarge: carries the logits of the prompts that fit.
        """
        ...

    async def check(self) -> None:
        """Raises if the engine cannot score now; cheap enough for a probe.

        Raises:
            EngineRestarting: the engine restarts, or has not answered for some seconds.
            EngineDown: the engine is down and not restarted.
        """
        ...
