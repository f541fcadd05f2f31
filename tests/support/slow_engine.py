"""A scheduler that misses deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from rankd.engines.base import EngineInfo
from rankd.engines.fake import FakeEngine
from rankd.errors import DeadlineExceeded
from rankd.ranking.scheduler import Scheduler
from rankd.types import Prompt


class Slow(Scheduler):
    """Scores the first `ready` prompts at once, and the others not before the deadline.

    Attributes:
        patience: seconds until the deadline of the last call; None without one.
    """

    def __init__(self, ready: int) -> None:
        super().__init__(FakeEngine(EngineInfo("fake", "slow", "0", "none", "none", 8192)))
        self.ready = ready
        self.patience: float | None = None

    async def score(
        self, prompts: Sequence[Prompt], *, deadline: float | None = None, **options: Any
    ) -> list[float]:
        self.patience = None if deadline is None else deadline - time.monotonic()
        if deadline is None or self.ready >= len(prompts):
            return await super().score(prompts, **options)
        logits = await super().score(prompts[: self.ready], **options)
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))
        raise DeadlineExceeded([*logits, *[None] * (len(prompts) - len(logits))])
