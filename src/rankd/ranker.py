"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from itertools import accumulate, islice, repeat
from typing import NamedTuple

from rankd import metrics
from rankd.admission import Admission, Ticket
from rankd.billing import search_units
from rankd.cache import ScoreCache
from rankd.engines.base import Engine, Listener, heard_by, name_of, whose
from rankd.errors import DeadlineExceeded, InternalError, InvalidRequest, TooLarge
from rankd.flights import Flights
from rankd.limits import Limits
from rankd.prompts import Encoded, PromptEncoder, refuse_many_pieces
from rankd.timeline import current
from rankd.types import Ask, Prompt, Ranking, Truncation, Verdict

# Tokens up to which a document is encoded to see whether it is known. One in chunks may have
# millions; to encode them is the work that is to be saved.
_PROBE = 100_000


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
        counted: whether what it ranks is counted in /metrics, likewise.
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
        self.counted = False
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

    async def timed(
        self, asks: Sequence[Ask], tell: Callable[[Verdict], None] | None = None
    ) -> Ranking:
        """As `rank_all`, and how long its parts took.

        Args:
            tell: is told of each verdict of a single ask as soon as it is known, once; of
                none before all of them are admitted.
        """
        self._refuse_too_many(asks)
        timeline = current()
        with self._place(asks) as ticket:
            async with self._limits(asks).call(asks[0].caller):
                began = time.perf_counter()
                with timeline.stage("tokenise"):
                    async with _in_time(asks):
                        await self._refuse_crowded(asks)
                        encoded = await self.encoder.encode(asks)
                refuse_many_pieces(sum(len(one.prompts) for one in encoded))
                ready = time.perf_counter()
                prompts = [prompt for one in encoded for prompt in one.prompts]
                told = None if tell is None else _Told(encoded[0], tell)
                pairs = await self._score(asks, prompts, ticket, told)
        scored = time.perf_counter()
        rest = iter(pairs)
        judged = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _refuse_unfinished(asks, judged)
        groups = [[verdict for verdict in one if verdict is not None] for one in judged]
        units = [_search_units(one, group) for one, group in zip(encoded, groups, strict=True)]
        queueing = timeline.seconds().get("queue", 0.0)
        ranking = Ranking(groups, ready - began, scored - ready, units, queueing)
        if self.counted:
            _count(ranking)
        return ranking

    def _place(self, asks: Sequence[Ask]) -> AbstractContextManager[Ticket]:
        enter = self.admission.aside if _in_background(asks) else self.admission.enter
        return enter(self._fewest_tokens(asks))

    def _limits(self, asks: Sequence[Ask]) -> Limits:
        """Work in the background is no part of what its caller may ask for in a minute."""
        return Limits() if _in_background(asks) else self.limits

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
        if _in_background(asks):
            return
        likely = self.encoder.likely_tokens(asks)
        if not self.admission.fits(likely) and not await self._knows_one(asks):
            self.admission.check_room(likely, "by their length")

    async def _knows_one(self, asks: Sequence[Ask]) -> bool:
        if not self.cache.is_kept or not _may_share(asks):
            return False
        ask = next(ask for ask in asks if ask.documents)
        # Cut where it does not fit: it would be refused by its place among all of them.
        refuses = (ask.truncation or self.encoder.fit.truncation) == "refuse"
        # Chunks that are only counted make nothing be refused.
        refuses = refuses and bool(ask.truncation or not ask.max_chunks)
        cuts: Truncation | None = "cut" if refuses else ask.truncation
        shortest = min(ask.documents, key=len)
        probe = replace(ask, documents=(shortest,), truncation=cuts, details=False)
        if self.encoder.likely_tokens([probe]) > _PROBE:
            return False
        [one] = await self.encoder.encode([probe])
        return bool(await self.cache.look_up(await self.cache.keys(one.prompts)))

    async def _score(
        self,
        asks: Sequence[Ask],
        prompts: Sequence[Prompt],
        ticket: Ticket,
        told: _Told | None,
    ) -> list[Scored]:
        """What is known of each prompt, in order; what is not is admitted and computed.

        Equal pairs are scored once: it saves work, and only then are their logits the
        same to the last bit, so that they keep the order of the request.
        """
        with current().stage("cache"):
            keys = await self.cache.keys(prompts)
            pairs: dict[bytes, Prompt] = {}
            for key, prompt in zip(keys, prompts, strict=True):
                pairs.setdefault(key, prompt)
            known = await self.look_up(asks, pairs)
        missing = {key: prompt for key, prompt in pairs.items() if key not in known}
        tokens = _tokens(missing.values())
        ticket.admit(tokens)
        await self._limits(asks).charge(asks[0].caller, tokens)
        if self.counted:
            metrics.DEDUPLICATED.inc(len(prompts) - len(pairs))
        if told is not None:
            told.begin(keys, known)
        computed = {}
        if missing:
            with current().scoring():
                computed = await self.compute(asks, missing, told)
        if told is not None:
            computed = told.end(computed)
        ticket.done(tokens - _tokens(missing[key] for key in computed))
        logits = known | computed
        return [Scored(logits.get(key), key in known) for key in keys]

    async def look_up(self, asks: Sequence[Ask], keys: Iterable[bytes]) -> dict[bytes, float]:
        """The logits that are known, by their keys; none for who wants them computed."""
        return await self.cache.look_up(keys) if _may_share(asks) else {}

    async def compute(
        self,
        asks: Sequence[Ask],
        pairs: Mapping[bytes, Prompt],
        told: _Told | None = None,
    ) -> dict[bytes, float]:
        """A logit for each pair that is scored in time, by its key."""
        if not pairs:
            return {}
        priority = min(ask.priority for ask in asks)
        deadline = _deadline(asks)
        shares = _may_share(asks)

        async def call(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
            scored: Sequence[float | None]
            listener = None if told is None else told.listener(list(pairs))
            try:
                with whose(asks[0]), heard_by(listener):
                    scored = await self.engine.score(
                        list(pairs.values()), priority=priority, deadline=deadline
                    )
            except DeadlineExceeded as late:
                scored = late.logits
            _refuse_nonsense(scored)
            rows = zip(pairs, scored, strict=True)
            logits = {key: logit for key, logit in rows if logit is not None}
            if self.counted:
                metrics.COMPUTED_PAIRS.inc(len(logits))
                metrics.COMPUTED_TOKENS.inc(_tokens(pairs[key] for key in logits))
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
            metrics.REFUSED.labels("request_documents").inc()
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


def _tokens(prompts: Iterable[Prompt]) -> int:
    return sum(map(len, prompts))


def _may_share(asks: Sequence[Ask]) -> bool:
    return all(ask.cache for ask in asks)


def _in_background(asks: Sequence[Ask]) -> bool:
    return all(ask.background for ask in asks)


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
    spans = encoded.spans or repeat(None, len(scored))
    pairs = iter(zip(scored, encoded.prompts, spans, strict=True))
    rows = zip(
        encoded.pieces, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        _verdict(index, list(islice(pairs, pieces)), whole, kept, longer)
        for index, (pieces, whole, kept, longer) in enumerate(rows)
    ]


def _verdict(
    index: int,
    pieces: Sequence[tuple[Scored, Prompt, tuple[int, int] | None]],
    whole: int,
    kept: int,
    longer: bool,
) -> Verdict | None:
    """Of a document that was read in pieces, the best piece counts; it may be any of them."""
    logits = [scored.logit for scored, _, _ in pieces if scored.logit is not None]
    if len(logits) < len(pieces):
        return None
    best = max(logits)
    piece = logits.index(best)
    return Verdict(
        index,
        best,
        tokens=_tokens(prompt for _, prompt, _ in pieces),
        document_tokens=whole,
        kept_tokens=kept,
        longer=longer,
        cached=all(scored.cached for scored, _, _ in pieces),
        cached_tokens=_tokens(prompt for scored, prompt, _ in pieces if scored.cached),
        pieces=len(pieces),
        piece=piece,
        span=pieces[piece][2],
    )


class _Told:
    """Tells of each document once, when the last of its pieces is scored.

    What was told stays so: a pair that an engine scores again, because it died meanwhile,
    keeps its first logit.
    """

    def __init__(self, encoded: Encoded, tell: Callable[[Verdict], None]) -> None:
        self._encoded = encoded
        self._tell = tell
        self._scored: dict[bytes, Scored] = {}
        self._keys: Sequence[bytes] = ()
        self._waiting: dict[bytes, list[int]] = {}
        self._missing = list(encoded.pieces)
        self._first = [0, *accumulate(encoded.pieces)]

    def begin(self, keys: Sequence[bytes], known: Mapping[bytes, float]) -> None:
        """Tell of what is known already.

        Args:
            keys: of the prompts, in their order.
        """
        self._keys = keys
        for place, document in enumerate(self._documents()):
            self._waiting.setdefault(keys[place], []).append(document)
        for key, logit in known.items():
            self._hear(key, Scored(logit, True))

    def listener(self, keys: Sequence[bytes]) -> Listener:
        """What an engine tells of its logits, of the pairs with these keys."""

        def hear(place: int, logit: float) -> None:
            if math.isfinite(logit):  # The others end the call.
                self._hear(keys[place], Scored(logit, False))

        return hear

    def end(self, computed: Mapping[bytes, float]) -> dict[bytes, float]:
        """Tell of what was not heard of; returns what was computed as it was told."""
        for key, logit in computed.items():
            self._hear(key, Scored(logit, False))
        return {
            key: one.logit
            for key, one in self._scored.items()
            if one.logit is not None and not one.cached
        }

    def _documents(self) -> list[int]:
        """For each prompt the document that it is of."""
        return [place for place, pieces in enumerate(self._encoded.pieces) for _ in range(pieces)]

    def _hear(self, key: bytes, scored: Scored) -> None:
        if key in self._scored:
            return
        self._scored[key] = scored
        for document in self._waiting[key]:
            self._missing[document] -= 1
            if not self._missing[document]:
                self._tell(self._verdict(document))

    def _verdict(self, document: int) -> Verdict:
        encoded = self._encoded
        places = range(self._first[document], self._first[document + 1])
        verdict = _verdict(
            document,
            [
                (self._scored[self._keys[place]], encoded.prompts[place], encoded.span(place))
                for place in places
            ],
            encoded.document_tokens[document],
            encoded.kept_tokens[document],
            encoded.longer[document],
        )
        assert verdict is not None
        return verdict


def _search_units(encoded: Encoded, verdicts: Sequence[Verdict]) -> int:
    return search_units(encoded.query_tokens, (verdict.kept_tokens for verdict in verdicts))


def _count(ranking: Ranking) -> None:
    """The metrics count what answers say, and nothing that was not answered."""
    usage = ranking.usage()
    metrics.REQUEST_DOCUMENTS.observe(usage.documents)
    metrics.REQUEST_TOKENS.observe(usage.prompt_tokens)
    metrics.DOCUMENTS.inc(usage.documents)
    metrics.CACHED_DOCUMENTS.inc(usage.cached_documents)
    metrics.TOKENS.inc(usage.prompt_tokens)
    metrics.CACHED_TOKENS.inc(usage.cached_tokens)
    metrics.SEARCH_UNITS.inc(usage.search_units)
    verdicts = [verdict for group in ranking.groups for verdict in group]
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in verdicts))
    metrics.CHUNKED.inc(sum(verdict.pieces > 1 for verdict in verdicts))
