"""An engine without a model: instant and deterministic, for client authors and tests.

A logit grows with the share of a document's tokens that the query contains. It says nothing about
relevance.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo, Slots
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds, Prompt

# Scoring is instant, so batches are larger than on other engines. They are still small enough that
# a long request can be cancelled and other requests are scored in between.
_BATCH_FACTOR = 4


class FakeEngine:
    def __init__(self, info: EngineInfo) -> None:
        self.info = info
        self.slots = Slots(1, eager=1)

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        return [self._logit(prompt) for prompt in batch]

    async def check(self) -> None:
        """Always succeeds."""

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
            batch_tokens=_BATCH_FACTOR * settings.batch_tokens,
            deterministic=True,
        )
    )
