"""An engine without a model: instant, deterministic, for client authors and tests.

Its logits follow the words that a document shares with the question, so answers
look alive; they mean nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rankd.config.settings import Settings
from rankd.engines.base import LISTENER, EngineInfo
from rankd.errors import DeadlineExceeded
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry import metrics
from rankd.types import AnswerTokenIds, Prompt


class FakeEngine:
    def __init__(self, info: EngineInfo) -> None:
        self.info = info

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        logits: list[float] = []
        listener = LISTENER.get()
        try:
            for place, prompt in enumerate(prompts):
                if deadline is not None and time.monotonic() >= deadline:
                    raise DeadlineExceeded([*logits, *[None] * (len(prompts) - place)])
                logits.append(self._logit(prompt))
                if listener is not None:
                    listener(place, logits[place])
                if place % 256 == 255:
                    await asyncio.sleep(0)  # A long request lets others in, and can be cancelled.
        finally:
            metrics.ABANDONED_DOCUMENTS.inc(len(prompts) - len(logits))
        return logits

    async def check(self) -> None:
        """Nothing here can break."""

    def _logit(self, prompt: Prompt) -> float:
        words = set(prompt.suffix)
        shared = len(words.intersection(prompt.prefix))
        return 12.0 * shared / len(words) - 6.0


@asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[FakeEngine]:
    yield FakeEngine(
        EngineInfo(
            name="fake",
            model=checkpoint.name,
            revision="fake",
            device="none",
            dtype="none",
            max_tokens=min(settings.max_tokens, checkpoint.max_tokens),
            deterministic=True,
        )
    )
