"""What scores a request the second time: this server with another instruction, or another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rankd.config.experiments import Shadow
from rankd.errors import BadSettings, InternalError
from rankd.ranking.profiles import Profile, Profiles
from rankd.ranking.ranker import Ranker
from rankd.types import BACKGROUND_PRIORITY, RankRequest

if TYPE_CHECKING:
    from rankd.client import RerankResponse

# In nats; below every logit. The other server may have a threshold of its own.
_NO_THRESHOLD = -1e9

ShadowScorer = Callable[[RankRequest], Awaitable[Sequence[float]]]
"""Logits of a request's documents, in their order, in nats; raises any exception on failure."""


@asynccontextmanager
async def open_scorer(
    table: Shadow, ranker: Ranker, profiles: Profiles
) -> AsyncIterator[ShadowScorer]:
    """The scorer of a table; raises `BadSettings` if it cannot be used."""
    preset = table.preset and profiles.choose(preset=table.preset)
    text = preset.instruction if preset else table.instruction
    if table.url is None:
        profile = profiles.choose(text=text, preset=table.preset, model=table.alias)
        yield local_scorer(table, ranker, profile)
        return
    try:
        from rankd.client import AsyncClient
    except ImportError as problem:
        raise BadSettings(f"shadow {table.name!r} has a url, and {problem}") from None
    timeout, key = table.timeout_seconds, _key(table)
    async with AsyncClient(table.url, api_key=key, timeout=timeout, retries=0) as client:

        async def score(request: RankRequest) -> Sequence[float]:
            answer = await client.rerank(
                request.query,
                request.documents,
                instruction=text or request.instruction,
                model=table.alias,
                return_documents=False,
                raw_scores=True,
                score_threshold=_NO_THRESHOLD,
                priority=999,
            )
            return _in_order(answer, len(request.documents))

        yield score


def local_scorer(table: Shadow, ranker: Ranker, profile: Profile) -> ShadowScorer:
    """Scores with the server's own engine, behind all requests of clients, without its cache."""
    # Its own ranker: nothing of it counts as a client's request, waits in admission or is cached.
    own = Ranker(ranker.encoder, ranker.scheduler, max_documents=ranker.max_documents)

    async def score(request: RankRequest) -> Sequence[float]:
        second = replace(
            profile.request(request.query, request.documents, request.truncation_policy),
            max_query_tokens=request.max_query_tokens,
            max_prompt_tokens=request.max_prompt_tokens,
            priority=BACKGROUND_PRIORITY,
            caller=f"shadow {table.name}",
            cache=False,
            background=True,
        )
        return [one.logit for one in await own.rank(second)]

    return score


def _key(table: Shadow) -> str | None:
    if table.api_key_file is None:
        return None
    try:
        return table.api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings(f"shadow {table.name!r}: cannot read api_key_file: {problem}") from None


def _in_order(answer: RerankResponse, count: int) -> Sequence[float]:
    logits = {one.index: one.relevance_score for one in answer.results}
    if sorted(logits) != list(range(count)):
        raise InternalError(f"the answer has {len(logits)} of {count} documents")
    return [logits[index] for index in range(count)]
