"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from rankd import metrics
from rankd.admission import Admission, Ticket
from rankd.cache import ScoreCache
from rankd.engines.base import Engine, name_of, whose
from rankd.errors import DeadlineExceeded, InternalError, InvalidRequest, TooLarge
from rankd.flights import Flights
from rankd.limits import Limits
from rankd.prompts import Encoded, PromptEncoder
from rankd.types import Ask, Prompt, Ranking, Verdict

# Pieces of the documents of one request; Cohere's own limit.
_MOST_PIECES = 10_000


class Scored(NamedTuple):
    """A pair's logit, None when it came too late, and whether an earlier request computed it."""

    logit: float | None
    cached: bool


class Ranker:
    """Decides how much is taken in, and turns logits into verdicts.

    Attributes:
        engine: what scores; it is ready.
        encoder: what makes its prompts.
        max_documents: in one request.
        cache: scores that were computed before; by default it keeps none.
        admission: what may wait; without limits until someone sets them.
        limits: what each caller may ask for, likewise.
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
        self.admission = Admission()
        self.limits = Limits()
        self.cache = cache or ScoreCache()
        self._flights = Flights()

    async def rank(self, ask: Ask) -> list[Verdict]:
        """One verdict for each document, in the order of the request; see `Ask.partial`.

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
        with self.admission.enter(self._fewest_tokens(asks)) as ticket:
            async with self.limits.call(asks[0].caller):
                began = time.perf_counter()
                async with _in_time(asks):
                    await self._refuse_crowded(asks)
                    encoded = await self.encoder.encode(asks)
                _refuse_too_many_pieces(encoded)
                ready = time.perf_counter()
                prompts = [prompt for one in encoded for prompt in one.prompts]
                pairs = await self._score(asks, prompts, ticket)
        scored = time.perf_counter()
        rest = iter(pairs)
        judged = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _refuse_unfinished(asks, judged)
        groups = [[verdict for verdict in one if verdict is not None] for one in judged]
        _count(groups)
        return Ranking(groups, ready - began, scored - ready)

    def _fewest_tokens(self, asks: Sequence[Ask]) -> int:
        """What there is to compute at least; that nothing is, only the cache can tell."""
        if self.cache.is_kept and _may_share(asks):
            return 0
        return self.encoder.fewest_tokens(asks)

    async def _refuse_crowded(self, asks: Sequence[Ask]) -> None:
        """Refuse what will hardly fit, without the work of encoding it.

        What is known needs no room. Whether that may be much, one document tells: where it
        is known, the others may be, too, and only their exact price decides.
        """
        likely = self.encoder.likely_tokens(asks)
        if not self.admission.fits(likely) and not await self._knows_one(asks):
            self.admission.check_room(likely, "by their length")

    async def _knows_one(self, asks: Sequence[Ask]) -> bool:
        if not self.cache.is_kept or not _may_share(asks):
            return False
        ask = next(ask for ask in asks if ask.documents)
        # Cut where it does not fit: it would be refused by its place among all of them.
        cuts = "end" if ask.truncation == "refuse" else ask.truncation
        shortest = min(ask.documents, key=len)
        [one] = await self.encoder.encode([replace(ask, documents=(shortest,), truncation=cuts)])
        return bool(await self.cache.look_up(await self.cache.keys(one.prompts)))

    async def _score(
        self, asks: Sequence[Ask], prompts: Sequence[Prompt], ticket: Ticket
    ) -> list[Scored]:
        """What is known of each prompt, in order; what is not is admitted and computed.

        Equal pairs are scored once: it saves work, and only then are their logits the
        same to the last bit, so that they keep the order of the request.
        """
        keys = await self.cache.keys(prompts)
        pairs: dict[bytes, Prompt] = {}
        for key, prompt in zip(keys, prompts, strict=True):
            pairs.setdefault(key, prompt)
        known = await self.look_up(asks, pairs)
        missing = {key: prompt for key, prompt in pairs.items() if key not in known}
        tokens = _tokens(missing.values())
        ticket.admit(tokens)
        await self.limits.charge(asks[0].caller, tokens)
        computed = await self.compute(asks, missing)
        ticket.done(tokens - _tokens(missing[key] for key in computed))
        logits = known | computed
        return [Scored(logits.get(key), key in known) for key in keys]

    async def look_up(self, asks: Sequence[Ask], keys: Iterable[bytes]) -> dict[bytes, float]:
        """The logits that are known, by their keys; none for who wants them computed."""
        return await self.cache.look_up(keys) if _may_share(asks) else {}

    async def compute(
        self, asks: Sequence[Ask], pairs: Mapping[bytes, Prompt]
    ) -> dict[bytes, float]:
        """A logit for each pair that is scored in time, by its key."""
        if not pairs:
            return {}
        priority = min(ask.priority for ask in asks)
        deadline = _deadline(asks)
        shares = _may_share(asks)

        async def call(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
            scored: Sequence[float | None]
            try:
                with whose(asks[0]):
                    scored = await self.engine.score(
                        list(pairs.values()), priority=priority, deadline=deadline
                    )
            except DeadlineExceeded as late:
                scored = late.logits
            _refuse_nonsense(scored)
            rows = zip(pairs, scored, strict=True)
            logits = {key: logit for key, logit in rows if logit is not None}
            if shares:
                self.cache.keep(logits)
            return logits

        if not shares:
            return await call(pairs)
        return await self._flights.score(
            pairs,
            call,
            caller=name_of(asks[0]),
            priority=priority,
            deadline=deadline,
            # Of another's call nothing is to be had until all of it is scored.
            joins=not all(ask.partial for ask in asks),
        )

    def _refuse_too_many(self, asks: Sequence[Ask]) -> None:
        documents = sum(len(ask.documents) for ask in asks)
        if documents == 0:
            raise InvalidRequest("documents must not be empty", param="documents")
        if documents > self.max_documents:
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


def _tokens(prompts: Iterable[Prompt]) -> int:
    return sum(map(len, prompts))


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


def _deadline(asks: Sequence[Ask]) -> float | None:
    return min((ask.deadline for ask in asks if ask.deadline is not None), default=None)


@asynccontextmanager
async def _in_time(asks: Sequence[Ask]) -> AsyncIterator[None]:
    """What is done in this block, before anything is scored, ends with the deadline."""
    deadline = _deadline(asks)
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            yield
    except TimeoutError:
        metrics.ABANDONED_REQUESTS.labels("deadline").inc()
        raise DeadlineExceeded([None] * sum(len(ask.documents) for ask in asks)) from None


def _refuse_unfinished(asks: Sequence[Ask], judged: Sequence[Sequence[Verdict | None]]) -> None:
    """Unless the caller takes a part of the answer, and there is one."""
    verdicts = [verdict for one in judged for verdict in one]
    missing = verdicts.count(None)
    if not missing:
        return
    metrics.ABANDONED_REQUESTS.labels("deadline").inc()
    if missing == len(verdicts) or not all(ask.partial for ask in asks):
        raise DeadlineExceeded([None if verdict is None else verdict.logit for verdict in verdicts])


def _refuse_nonsense(logits: Sequence[float | None]) -> None:
    """An overflow in half precision must not be sorted and served as a score."""
    if not all(logit is None or math.isfinite(logit) for logit in logits):
        raise InternalError(
            "the model gave no number for a document; float16 overflows, --dtype bfloat16 does not"
        )


def _verdicts(encoded: Encoded, scored: Sequence[Scored]) -> list[Verdict | None]:
    """One for each document; None where it was not scored in time."""
    pairs = iter(zip(scored, encoded.prompts, strict=True))
    rows = zip(
        encoded.pieces, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        _verdict(index, list(islice(pairs, pieces)), whole, kept, longer)
        for index, (pieces, whole, kept, longer) in enumerate(rows)
    ]


def _verdict(
    index: int, pieces: Sequence[tuple[Scored, Prompt]], whole: int, kept: int, longer: bool
) -> Verdict | None:
    """Of a document that was read in pieces, the best piece counts; it may be any of them."""
    logits = [scored.logit for scored, _ in pieces if scored.logit is not None]
    if len(logits) < len(pieces):
        return None
    tokens = _tokens(prompt for _, prompt in pieces)
    cached = all(scored.cached for scored, _ in pieces)
    return Verdict(index, max(logits), tokens, whole, kept, longer, cached)


def _count(verdicts: Sequence[Sequence[Verdict]]) -> None:
    every = [verdict for one in verdicts for verdict in one]
    metrics.DOCUMENTS.inc(len(every))
    metrics.TOKENS.inc(sum(verdict.tokens for verdict in every))
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in every))
