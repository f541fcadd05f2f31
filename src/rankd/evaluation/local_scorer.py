"""Scores with an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rankd import __version__
from rankd.evaluation.scorer import DOCUMENTS_PER_CALL, QueryScores, Scorer, ScorerOptions
from rankd.models.calibration_tables import FINGERPRINT_DIGITS
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker
from rankd.types import RankRequest


@asynccontextmanager
async def open_local(options: ScorerOptions) -> AsyncIterator[Scorer]:
    """Load the model and start its engine.

    Raises:
        SetupError: the model cannot be served here; says why.
    """
    settings = options.settings
    async with open_ranker(settings) as (checkpoint, ranker):
        info = ranker.engine.info
        about = {
            "model": checkpoint.name,
            "weights": (await asyncio.to_thread(checkpoint.fingerprint))[:FINGERPRINT_DIGITS],
            "template": ranker.encoder.template,
            "engine": f"{info.name} {info.version}".rstrip(),
            "device": info.device,
            "dtype": info.dtype,
            "max_tokens": info.max_tokens,
            "instruction": options.instruction or ranker.encoder.instruction,
            "rankd": __version__,
        }
        yield _LocalScorer(checkpoint.name, about, ranker, options.instruction)


@dataclass
class _LocalScorer:
    model: str
    about: dict[str, Any]
    ranker: Ranker
    instruction: str | None
    probe: list[float] = field(default_factory=list)

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        logits: list[float] = []
        truncated = 0
        step = min(DOCUMENTS_PER_CALL, self.ranker.max_documents)
        for start in range(0, len(documents), step):
            part = tuple(documents[start : start + step])
            scored_documents = await self.ranker.rank(
                RankRequest(query, part, instruction=instruction or self.instruction)
            )
            logits += [scored.logit for scored in scored_documents]
            truncated += sum(scored.truncated for scored in scored_documents)
        limit = self.ranker.engine.info.max_tokens
        warning = f"{truncated} of {len(documents)} documents were cut to fit {limit:,} tokens"
        return QueryScores(logits, warning if truncated else None)
