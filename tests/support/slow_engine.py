"""An engine that does not finish in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rankd.engines.base import EngineInfo
from rankd.engines.fake import FakeEngine
from rankd.errors import DeadlineExceeded
from rankd.types import Prompt


class Slow(FakeEngine):
    """Scores some prompts at once, and the others not before the deadline."""

    def __init__(self, ready: int) -> None:
        super().__init__(EngineInfo("fake", "slow", "0", "none", "none", 8192))
        self.ready = ready
        self.patience: float | None = None

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        self.patience = None if deadline is None else deadline - time.monotonic()
        logits = await super().score(prompts[: self.ready], priority=priority)
        if deadline is not None and self.ready < len(prompts):
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            raise DeadlineExceeded([*logits, *[None] * (len(prompts) - len(logits))])
        return await super().score(prompts, priority=priority)
