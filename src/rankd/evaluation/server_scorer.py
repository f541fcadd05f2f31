"""Scores with a server: rankd, or any other with a compatible `/v1/rerank`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rankd.client import (
    AsyncClient,
    BadRequest,
    RankdError,
    RerankRequest,
    RerankResponse,
    Result,
    Usage,
)
from rankd.client.call import Call
from rankd.errors import BadSettings, SetupError
from rankd.evaluation.scorer import DOCUMENTS_PER_CALL, QueryScores, Scorer, ScorerOptions
from rankd.ranking.self_check import KNOWN_PAIRS

# For one call, retries included.
_TIMEOUT_SECONDS = 600.0

# Few retries at first, where an unreachable server means a wrong URL; more later, when it
# may be restarting.
_FIRST_RETRIES, _RETRIES = 1, 8

# Probabilities are moved this far from 0 and 1 before their logit is taken: a
# single-precision sigmoid is no more exact.
_MIN_PROBABILITY = 1e-7


class ServerFailed(SetupError):
    """The server gave no scores. Scores received earlier are kept."""


@asynccontextmanager
async def open_remote(options: ScorerOptions, url: str) -> AsyncIterator[Scorer]:
    """Connect to a server and score the known pairs.

    Raises:
        BadSettings: the URL or the key cannot be used.
        ServerFailed: the server cannot be reached or refuses the known pairs.
    """
    keys = options.settings.api_keys
    if keys and keys[0].startswith("sha256:"):
        raise BadSettings("--url needs the key itself, not its digest")
    about: dict[str, Any] = {"api_key": keys[0] if keys else None, "model": options.model}
    try:
        first = _CompatibleClient(url, timeout=_TIMEOUT_SECONDS, retries=_FIRST_RETRIES, **about)
        client = _CompatibleClient(url, timeout=_TIMEOUT_SECONDS, retries=_RETRIES, **about)
    except ValueError as problem:
        raise BadSettings(f"--url: {problem}") from None
    async with client:
        scorer = _ServerScorer(url, client, options)
        try:
            async with first:
                await scorer.detect(first)
        except RankdError as problem:
            raise scorer.failed(problem) from None
        yield scorer


class _CompatibleClient(AsyncClient):
    """rankd's client, for servers that return only results: Cohere names no model and usage."""

    def _rerank(self, request: RerankRequest) -> Call[RerankResponse]:
        call = super()._rerank(request)
        call.read = _read_response
        return call


def _read_response(answer: Any) -> RerankResponse:
    return RerankResponse(
        tuple(
            Result(int(result["index"]), float(result["relevance_score"]), None)
            for result in answer["results"]
        ),
        model=answer.get("model") or "",
        id=answer.get("id") or "",
        usage=Usage(0, 0),
        warnings=tuple((answer.get("meta") or {}).get("warnings") or ()),
    )


class _ServerScorer:
    def __init__(self, url: str, client: AsyncClient, options: ScorerOptions) -> None:
        self._url = url
        self._client = client
        self._instruction = options.instruction
        self._extra_fields: dict[str, Any] = {}
        self._gives_logits = False
        self.model = options.model or ""
        self.about: dict[str, Any] = {}
        self.probe: list[float] = []

    async def detect(self, client: AsyncClient) -> None:
        """Find out whether the server gives logits, and score the known pairs.

        Some servers ignore `raw_scores`, some refuse it. With a server that supports it, the
        scores differ from those without it.
        """
        scores, answer = await self._score_known_pair(client, {})
        self.model = answer.model or self.model
        self._gives_logits = not all(0 <= score <= 1 for score in scores)
        if not self._gives_logits:
            try:
                raw, _ = await self._score_known_pair(client, {"raw_scores": True})
            except BadRequest:
                raw = scores
            if raw != scores:
                self._extra_fields = {"raw_scores": True}
                self._gives_logits = True
                scores = raw
        self.probe = [self._logit(score) for score in scores]
        self.about = {
            "url": self._url,
            "model": self.model,
            "instruction": self._instruction or "the server's own",
            "scores": "logits" if self._gives_logits else "probabilities",
        }

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        logits: list[float] = []
        warning = None
        for start in range(0, len(documents), DOCUMENTS_PER_CALL):
            part = documents[start : start + DOCUMENTS_PER_CALL]
            try:
                scores, answer = await self._rerank(
                    self._client, query, part, instruction, self._extra_fields
                )
            except RankdError as problem:
                raise self.failed(problem) from None
            logits += [self._logit(score) for score in scores]
            warning = warning or next(iter(answer.warnings), None)
        return QueryScores(logits, warning)

    def failed(self, problem: RankdError) -> ServerFailed:
        return ServerFailed(f"{self._url}: {problem.message}")

    async def _score_known_pair(
        self, client: AsyncClient, fields: dict[str, Any]
    ) -> tuple[list[float], RerankResponse]:
        pair = KNOWN_PAIRS[0]
        return await self._rerank(client, pair.query, [pair.right, pair.wrong], None, fields)

    async def _rerank(
        self,
        client: AsyncClient,
        query: str,
        documents: Sequence[str],
        instruction: str | None,
        fields: dict[str, Any],
    ) -> tuple[list[float], RerankResponse]:
        """The scores in the order of the documents, and the whole answer."""
        instruction = instruction or self._instruction
        if instruction is not None:
            fields = {**fields, "instruction": instruction}
        answer = await client.rerank(query, documents, **fields)
        scores = {result.index: result.relevance_score for result in answer.results}
        if sorted(scores) != list(range(len(documents))):
            raise ServerFailed(f"{self._url} scored {len(scores)} of {len(documents)} documents")
        if not all(map(math.isfinite, scores.values())):
            raise ServerFailed(f"{self._url} returned a score that is not a finite number")
        return [scores[index] for index in range(len(documents))], answer

    def _logit(self, score: float) -> float:
        if self._gives_logits:
            return score
        probability = min(max(score, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
        return math.log(probability) - math.log1p(-probability)
