"""Who scores: an engine in this process, or any server that reranks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rankd import __version__
from rankd.config.settings import Settings
from rankd.errors import BadSettings, SetupError
from rankd.ranking.self_check import KNOWN_PAIRS
from rankd.types import RankRequest, sigmoid

if TYPE_CHECKING:
    from rankd.client import AsyncClient, RankdError, RerankResponse
    from rankd.ranking.ranker import Ranker

# Documents of one call: enough for an engine to share the query's work, few enough for
# every server's limit.
_STEP = 100

# A server answers each call in this time, or never.
_TIMEOUT_SECONDS = 600.0

# A server that is not there at first is a wrong address; later it is being started again.
_FIRST_RETRIES, _RETRIES = 1, 8

# Probabilities of a single-precision sigmoid are not told apart beyond.
_SURE = 1e-7

# Probability by which one model's score of one pair differs from itself: half precision,
# and another batch.
_LEEWAY = 0.05


class ServerFailed(SetupError):
    """The server that was asked gave no scores; what is there already is kept."""


@dataclass(frozen=True, slots=True)
class QueryScores:
    """One query's documents, in their order.

    Attributes:
        logits: in nats; of a server that tells only probabilities, made of these.
        warning: what was said of them, such as that some were cut.
    """

    logits: list[float]
    warning: str | None = None


@dataclass(frozen=True)
class ScorerOptions:
    """What is to be opened: a local set-up, or a server.

    Attributes:
        settings: of the local engine; of a server's, `api_keys` alone.
        instruction: what relevance means; None is the set-up's own default.
        model: the name to send to a server; None sends none.
    """

    settings: Settings
    url: str | None = None
    instruction: str | None = None
    model: str | None = None


class Scorer(Protocol):
    """What gives scores, whoever computes them.

    Attributes:
        model: what it calls its model.
        about: everything that decides its scores; equal ones give equal scores.
        probe: logits of known pairs, by which a server is known again; of a local engine,
            which its files tell apart, there are none.
    """

    model: str
    about: dict[str, Any]
    probe: list[float]

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        """Score N documents; N logits in their order."""
        ...


def is_same(probe: Sequence[float], before: Sequence[float]) -> bool:
    """Whether a server scores as it did; see `_LEEWAY`."""
    return len(probe) == len(before) and all(
        abs(sigmoid(now) - sigmoid(then)) <= _LEEWAY
        for now, then in zip(probe, before, strict=True)
    )


@asynccontextmanager
async def open_scorer(side: ScorerOptions) -> AsyncIterator[Scorer]:
    """A scorer that is ready.

    Raises:
        SetupError: the model or the server cannot be used; says why.
    """
    opened = _open_local(side) if side.url is None else _open_remote(side, side.url)
    async with opened as scorer:
        yield scorer


@asynccontextmanager
async def _open_local(side: ScorerOptions) -> AsyncIterator[Scorer]:
    from rankd.server.app import open_ranker

    settings = side.settings
    async with open_ranker(settings) as (checkpoint, ranker):
        info = ranker.engine.info
        about = {
            "model": checkpoint.name,
            "weights": (await asyncio.to_thread(checkpoint.fingerprint))[:16],
            "engine": f"{info.name} {info.version}".rstrip(),
            "device": info.device,
            "dtype": info.dtype,
            "max_tokens": info.max_tokens,
            "instruction": side.instruction or settings.instruction,
            "rankd": __version__,
        }
        yield _Local(checkpoint.name, about, ranker, side.instruction)


@dataclass
class _Local:
    model: str
    about: dict[str, Any]
    ranker: Ranker
    instruction: str | None
    probe: list[float] = field(default_factory=list)

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        logits: list[float] = []
        cut = 0
        step = min(_STEP, self.ranker.max_documents)
        for start in range(0, len(documents), step):
            part = tuple(documents[start : start + step])
            scored_documents = await self.ranker.rank(
                RankRequest(query, part, instruction=instruction or self.instruction)
            )
            logits += [scored_document.logit for scored_document in scored_documents]
            cut += sum(scored_document.truncated for scored_document in scored_documents)
        longest = self.ranker.engine.info.max_tokens
        warning = f"{cut} of {len(documents)} documents were cut to fit {longest:,} tokens"
        return QueryScores(logits, warning if cut else None)


@asynccontextmanager
async def _open_remote(side: ScorerOptions, url: str) -> AsyncIterator[Scorer]:
    try:
        from rankd.evaluation.server_client import open_client
    except ImportError as problem:
        raise BadSettings(f"--url: {problem}") from None
    from rankd.client import RankdError

    keys = side.settings.api_keys
    if keys and keys[0].startswith("sha256:"):
        raise BadSettings("--url needs the key itself; its digest opens no server")
    about: dict[str, Any] = {"api_key": keys[0] if keys else None, "model": side.model}
    try:
        first = open_client(url, timeout=_TIMEOUT_SECONDS, retries=_FIRST_RETRIES, **about)
        client = open_client(url, timeout=_TIMEOUT_SECONDS, retries=_RETRIES, **about)
    except ValueError as problem:
        raise BadSettings(f"--url: {problem}") from None
    async with client:
        scorer = _Remote(url, client, side)
        try:
            async with first:
                await scorer.get_acquainted(first)
        except RankdError as problem:
            raise scorer.failed(problem) from None
        yield scorer


class _Remote:
    def __init__(self, url: str, client: AsyncClient, side: ScorerOptions) -> None:
        self._url = url
        self._client = client
        self._instruction = side.instruction
        self._options: dict[str, Any] = {}
        self._tells_logits = False
        self.model = side.model or ""
        self.about: dict[str, Any] = {}
        self.probe: list[float] = []

    async def get_acquainted(self, client: AsyncClient) -> None:
        """Find out what the server understands, and how it scores known pairs.

        Not every server knows `raw_scores`: some ignore it, some refuse it. One that heeds
        it gives other numbers with it than without.
        """
        from rankd.client import BadRequest

        plain, answer = await self._probe(client, {})
        self.model = answer.model or self.model
        self._tells_logits = not all(0 <= score <= 1 for score in plain)
        if not self._tells_logits:
            try:
                raw, _ = await self._probe(client, {"raw_scores": True})
            except BadRequest:
                raw = plain
            if raw != plain:
                self._options = {"raw_scores": True}
                self._tells_logits = True
                plain = raw
        self.probe = [self._logit(score) for score in plain]
        self.about = {
            "url": self._url,
            "model": self.model,
            "instruction": self._instruction or "the server's own",
            "scores": "logits" if self._tells_logits else "probabilities",
        }

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        from rankd.client import RankdError

        logits: list[float] = []
        warning = None
        for start in range(0, len(documents), _STEP):
            part = documents[start : start + _STEP]
            try:
                scores, answer = await self._ask(
                    self._client, query, part, instruction, self._options
                )
            except RankdError as problem:
                raise self.failed(problem) from None
            logits += [self._logit(score) for score in scores]
            warning = warning or next(iter(answer.warnings), None)
        return QueryScores(logits, warning)

    def failed(self, problem: RankdError) -> ServerFailed:
        return ServerFailed(f"{self._url}: {problem.message}")

    async def _probe(
        self, client: AsyncClient, options: dict[str, Any]
    ) -> tuple[list[float], RerankResponse]:
        pair = KNOWN_PAIRS[0]
        return await self._ask(client, pair.query, [pair.right, pair.wrong], None, options)

    async def _ask(
        self,
        client: AsyncClient,
        query: str,
        documents: Sequence[str],
        instruction: str | None,
        options: dict[str, Any],
    ) -> tuple[list[float], RerankResponse]:
        instruction = instruction or self._instruction
        if instruction is not None:
            options = {**options, "instruction": instruction}
        answer = await client.rerank(query, documents, **options)
        scores = {result.index: result.relevance_score for result in answer.results}
        if sorted(scores) != list(range(len(documents))):
            raise ServerFailed(f"{self._url} scored {len(scores)} of {len(documents)} documents")
        if not all(map(math.isfinite, scores.values())):
            raise ServerFailed(f"{self._url} gave a score that is no number")
        return [scores[place] for place in range(len(documents))], answer

    def _logit(self, score: float) -> float:
        if self._tells_logits:
            return score
        probability = min(max(score, _SURE), 1 - _SURE)
        return math.log(probability) - math.log1p(-probability)
