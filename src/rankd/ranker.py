"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from rankd import metrics
from rankd.cache import ScoreCache
from rankd.engines.base import Engine
from rankd.errors import InternalError, InvalidRequest, TooLarge
from rankd.flights import Flights
from rankd.prompts import Encoded, PromptEncoder
from rankd.types import Ask, Prompt, Ranking, Verdict

# Pieces of the documents of one request; Cohere's own limit.
_MOST_PIECES = 10_000


class Scored(NamedTuple):
    """A pair's logit, and whether it was computed for an earlier request."""

    logit: float
    cached: bool


class Ranker:
    """Decides how much is taken in, and turns logits into verdicts.

    Attributes:
        engine: what scores; it is ready.
        encoder: what makes its prompts.
        max_documents: in one request.
        cache: scores that were computed before; by default it keeps none.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        engine: Engine,
        *,
        max_documents: int,
        cache: ScoreCache | None = None,
    ) -> None:
        self.engine = engine
        self.encoder = encoder
        self.max_documents = max_documents
        self.cache = cache or ScoreCache()
        self._flights = Flights()

    async def rank(self, ask: Ask) -> list[Verdict]:
        """One verdict for each document, in the order of the request.

        Raises:
            RankError: a limit is passed, the deadline too, or the engine is down.
        """
        [verdicts] = await self.rank_all([ask])
        return verdicts

    async def rank_all(self, asks: Sequence[Ask]) -> list[list[Verdict]]:
        """Several asks of one request: taken together, or refused together."""
        return (await self.timed(asks)).groups

    async def timed(self, asks: Sequence[Ask]) -> Ranking:
        """As `rank_all`, and how long its parts took."""
        self._refuse_too_many(asks)
        began = time.perf_counter()
        encoded = await self.encoder.encode(asks)
        _refuse_too_many_pieces(encoded)
        ready = time.perf_counter()
        pairs = await self._score(asks, [prompt for one in encoded for prompt in one.prompts])
        scored = time.perf_counter()
        rest = iter(pairs)
        groups = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _count(groups)
        return Ranking(groups, ready - began, scored - ready)

    async def _score(self, asks: Sequence[Ask], prompts: Sequence[Prompt]) -> list[Scored]:
        """A logit for each prompt, in order.

        Equal pairs are scored once: it saves work, and only then are their logits the
        same to the last bit, so that they keep the order of the request.
        """
        keys = await self.cache.keys(prompts)
        pairs: dict[bytes, Prompt] = {}
        for key, prompt in zip(keys, prompts, strict=True):
            pairs.setdefault(key, prompt)
        known = await self.look_up(asks, pairs)
        missing = {key: prompt for key, prompt in pairs.items() if key not in known}
        logits = known | await self.compute(asks, missing)
        return [Scored(logits[key], key in known) for key in keys]

    async def look_up(self, asks: Sequence[Ask], keys: Iterable[bytes]) -> dict[bytes, float]:
        """The logits that are known, by their keys; none for who wants them computed."""
        return await self.cache.look_up(keys) if _may_share(asks) else {}

    async def compute(
        self, asks: Sequence[Ask], pairs: Mapping[bytes, Prompt]
    ) -> dict[bytes, float]:
        """A logit for each pair, by its key: the engine's work for this request."""
        if not pairs:
            return {}
        priority = min(ask.priority for ask in asks)
        deadline = min((ask.deadline for ask in asks if ask.deadline is not None), default=None)

        shares = _may_share(asks)

        async def call(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
            scored = await self.engine.score(
                list(pairs.values()), priority=priority, deadline=deadline
            )
            _refuse_nonsense(scored)
            logits = dict(zip(pairs, scored, strict=True))
            if shares:
                self.cache.keep(logits)
            return logits

        if not shares:
            return await call(pairs)
        return await self._flights.score(pairs, call, priority=priority, deadline=deadline)

    def _refuse_too_many(self, asks: Sequence[Ask]) -> None:
        documents = sum(len(ask.documents) for ask in asks)
        if documents == 0:
            raise InvalidRequest("documents must not be empty", param="documents")
        if documents > self.max_documents:
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


def _may_share(asks: Sequence[Ask]) -> bool:
    return all(ask.cache for ask in asks)


def _refuse_too_many_pieces(encoded: Sequence[Encoded]) -> None:
    pieces = sum(len(one.prompts) for one in encoded)
    if pieces > _MOST_PIECES:
        raise TooLarge(
            f"the documents make {pieces:,} chunks; the limit is {_MOST_PIECES:,}: "
            "lower max_chunks_per_doc",
            param="max_chunks_per_doc",
        )


def _refuse_nonsense(logits: Sequence[float]) -> None:
    """An overflow in half precision must not be sorted and served as a score."""
    if not all(map(math.isfinite, logits)):
        raise InternalError(
            "the model gave no number for a document; float16 overflows, --dtype bfloat16 does not"
        )


def _verdicts(encoded: Encoded, scored: Sequence[Scored]) -> list[Verdict]:
    pairs = iter(zip(scored, encoded.prompts, strict=True))
    rows = zip(encoded.pieces, encoded.document_tokens, encoded.kept_tokens, strict=True)
    return [
        _verdict(index, list(islice(pairs, pieces)), whole, kept)
        for index, (pieces, whole, kept) in enumerate(rows)
    ]


def _verdict(index: int, pieces: Sequence[tuple[Scored, Prompt]], whole: int, kept: int) -> Verdict:
    """Of a document that was read in pieces, the best piece counts."""
    best = max(scored.logit for scored, _ in pieces)
    tokens = sum(len(prompt) for _, prompt in pieces)
    return Verdict(index, best, tokens, whole, kept, all(scored.cached for scored, _ in pieces))


def _count(verdicts: Sequence[Sequence[Verdict]]) -> None:
    every = [verdict for one in verdicts for verdict in one]
    metrics.DOCUMENTS.inc(len(every))
    metrics.TOKENS.inc(sum(verdict.tokens for verdict in every))
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in every))
