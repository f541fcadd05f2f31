"""Ranks requests: encode, look up, admit, score, and take the best chunk of each document."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice

from rankd.errors import DeadlineExceeded, InternalError, InvalidRequest, TooLarge
from rankd.prompts import EncodedRequest, PromptEncoder, refuse_many_chunks
from rankd.ranking.admission import Admission, Ticket
from rankd.ranking.billing import search_units
from rankd.ranking.cache import ScoreCache
from rankd.ranking.coalescing import SingleFlight
from rankd.ranking.rate_limits import RateLimiter
from rankd.ranking.results import PairScore, ResultStream, scored_documents
from rankd.ranking.scheduler import Scheduler
from rankd.ranking.spans import SentencePlan, plan_spans
from rankd.telemetry import metrics
from rankd.telemetry.timings import StageTimings
from rankd.types import (
    Prompt,
    RankRequest,
    RankResult,
    RankUsage,
    ScoredDocument,
    SpanOptions,
    Truncation,
)

# Longest document, in tokens, that is encoded only to see whether the cache has it. A document in
# chunks may have millions.
_MAX_PROBE_TOKENS = 100_000


class Ranker:
    """Scores requests: prompts, cache, limits, the engine, and the best chunk of each document.

        ranker = Ranker(encoder, Scheduler(engine), max_documents=1000)
        [beijing, gravity] = await ranker.rank(RankRequest("capital of China?", ("Beijing", "…")))

    Args:
        encoder: makes the prompts.
        scheduler: scores them.
        max_documents: in one request.
        cache: scores computed before; default: none are kept.
        admission: how much may wait; default: any amount.
        limits: what each key may ask for; default: anything.
        counted: whether its work is counted in /metrics.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        scheduler: Scheduler,
        *,
        max_documents: int,
        cache: ScoreCache | None = None,
        admission: Admission | None = None,
        limits: RateLimiter | None = None,
        counted: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self.engine = scheduler.engine
        self.encoder = encoder
        self.max_documents = max_documents
        self.admission = admission or Admission()
        self.limits = limits or RateLimiter()
        self.counted = counted
        self.cache = cache or ScoreCache()
        self._flights = SingleFlight()

    async def rank(self, request: RankRequest) -> list[ScoredDocument]:
        """The scored documents, in the order of the request; see `RankRequest.partial`.

        Raises:
            RankError: a limit is passed, the deadline too, or the engine is down.
        """
        [results] = await self.rank_all([request])
        return results

    async def rank_all(self, requests: Sequence[RankRequest]) -> list[list[ScoredDocument]]:
        """Rank several queries of one request: admitted together, or refused together."""
        return (await self.rank_measured(requests)).groups

    async def rank_measured(
        self,
        requests: Sequence[RankRequest],
        on_result: Callable[[ScoredDocument], None] | None = None,
        timings: StageTimings | None = None,
    ) -> RankResult:
        """As `rank_all`, and how long its parts took.

        Args:
            on_result: called with each document of a single request as soon as it is scored,
                once; not before the whole request is admitted.
            timings: receives the stages.
        """
        self._refuse_too_many(requests)
        timings = timings or StageTimings()
        terms = _terms(requests)
        # Batch jobs do not count towards the rate limits of their key.
        limits = self.limits if self.limits.is_enabled and not terms.background else None
        with self._enter(requests, terms) as ticket:
            async with nullcontext() if limits is None else limits.call(terms.caller):
                began = time.perf_counter()
                with timings.stage("tokenise"):
                    encoded = await self._encode(requests, terms)
                ready = time.perf_counter()
                stream = None if on_result is None else ResultStream(encoded[0], on_result)
                prompts = [prompt for one in encoded for prompt in one.prompts]
                work = _Work(prompts, terms, ticket, limits, stream, timings)
                plan = None
                if (options := requests[0].spans) is not None:
                    plan = await self._plan_spans(requests[0], options, encoded[0], work)
                rest = iter(await self._score(work))
                by_request = [
                    scored_documents(one, list(islice(rest, len(one.prompts)))) for one in encoded
                ]
                _refuse_unfinished(terms, by_request)
                groups = [[result for result in one if result is not None] for one in by_request]
                sentences: Sequence[ScoredDocument] = ()
                if plan is not None:
                    groups[0], sentences = await self._find_spans(plan, groups[0], work)
        scored = time.perf_counter()
        units = [
            search_units(one.query_tokens, [result.kept_tokens for result in group])
            for one, group in zip(encoded, groups, strict=True)
        ]
        queueing = sum(
            [stage.ended - stage.began for stage in timings.stages if stage.name == "queue"]
        )
        documents = [document for group in groups for document in group]
        ranking = RankResult(
            groups,
            documents,
            [document for document in documents if document.kept_tokens < document.document_tokens],
            _usage(documents, units, sentences),
            encoding=ready - began,
            scoring=scored - ready,
            queueing=queueing,
        )
        if self.counted:
            _count(ranking)
        return ranking

    async def _plan_spans(
        self, request: RankRequest, options: SpanOptions, encoded: EncodedRequest, work: _Work
    ) -> SentencePlan:
        """The sentences that may be scored; reserves their tokens."""
        with work.timings.stage("tokenise"):
            plan = await plan_spans(request, options, encoded, len(self.encoder.suffix))
        work.reserved = plan.tokens
        return plan

    async def _find_spans(
        self, plan: SentencePlan, documents: list[ScoredDocument], work: _Work
    ) -> tuple[list[ScoredDocument], list[ScoredDocument]]:
        """The documents, the best of them with spans; and the sentences that were scored."""
        best = plan.chosen(documents)
        request = plan.request_for(best)
        scored: list[ScoredDocument | None] = []
        if request is not None:
            with work.timings.stage("tokenise"):
                [encoded] = await self.encoder.encode([request])
            work = replace(work, prompts=encoded.prompts, stream=None, is_admitted=True, reserved=0)
            scored = scored_documents(encoded, await self._score(work))
            if not work.terms.partial:
                _refuse_unfinished(work.terms, [scored])
        found = {document.index: document for document in plan.with_spans(best, scored)}
        return (
            [found.get(document.index, document) for document in documents],
            [sentence for sentence in scored if sentence is not None],
        )

    def _enter(
        self, requests: Sequence[RankRequest], terms: _Terms
    ) -> AbstractContextManager[Ticket]:
        # With a cache, even the minimum is unknown before the look-up.
        known = self.cache.is_enabled and terms.shares
        tokens = 0 if known else self.encoder.min_tokens(requests)
        if terms.background:
            return self.admission.enter_background(tokens)
        return self.admission.enter(tokens)

    async def _encode(
        self, requests: Sequence[RankRequest], terms: _Terms
    ) -> Sequence[EncodedRequest]:
        """The prompts of each request, before the deadline."""
        timeout = None if terms.deadline is None else terms.deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                # While nothing else waits, everything fits.
                if self.admission.tokens and not terms.background:
                    await self._refuse_crowded(requests, terms)
                encoded = await self.encoder.encode(requests)
        except TimeoutError:
            metrics.ABANDONED_REQUESTS.labels("deadline").inc()
            raise DeadlineExceeded(
                [None] * sum([len(request.documents) for request in requests])
            ) from None
        if len(encoded) > 1:
            refuse_many_chunks(sum([len(one.prompts) for one in encoded]))
        return encoded

    async def _refuse_crowded(self, requests: Sequence[RankRequest], terms: _Terms) -> None:
        """Refuse requests that will not be admitted, without the work of encoding them.

        Pairs in the cache need no admission. If one document is in the cache, the others may be,
        and only the exact number of tokens decides.
        """
        likely = self.encoder.estimated_tokens(requests)
        if not self.admission.fits(likely) and not await self._knows_one(requests, terms):
            self.admission.check_room(likely, "by their length")

    async def _knows_one(self, requests: Sequence[RankRequest], terms: _Terms) -> bool:
        if not self.cache.is_enabled or not terms.shares:
            return False
        request = next(request for request in requests if request.documents)
        # Cut instead of refused: an error would name the index 0.
        refuses = (request.truncation or self.encoder.truncation_policy.truncation) == "refuse"
        # A number of chunks alone refuses nothing.
        refuses = refuses and bool(request.truncation or not request.max_chunks)
        cuts: Truncation | None = "cut" if refuses else request.truncation
        shortest = min(request.documents, key=len)
        probe = replace(request, documents=(shortest,), truncation=cuts, details=False)
        if self.encoder.estimated_tokens([probe]) > _MAX_PROBE_TOKENS:
            return False
        [one] = await self.encoder.encode([probe])
        return bool(await self.cache.look_up(await self.cache.keys(one.prompts)))

    async def _score(self, work: _Work) -> list[PairScore]:
        """A score per prompt, in order: from the cache, or admitted and computed.

        Equal pairs are scored once. That saves work, and makes their logits equal to the last
        bit, so that they keep the order of the request.
        """
        prompts, ticket, stream = work.prompts, work.ticket, work.stream
        with work.timings.stage("cache"):
            keys = await self.cache.keys(prompts)
            pairs: dict[bytes, Prompt] = {}
            for key, prompt in zip(keys, prompts, strict=True):
                pairs.setdefault(key, prompt)
            # Without look-up if a request has `cache: false`.
            known = await self.cache.look_up(pairs) if work.terms.shares else {}
        missing = {key: prompt for key, prompt in pairs.items() if key not in known}
        tokens = _tokens(missing.values())
        if work.is_admitted:
            ticket.resize(tokens)
        else:
            ticket.admit(tokens + work.reserved)
        if work.limits is not None:
            await work.limits.charge(work.terms.caller, tokens)
        if self.counted:
            metrics.DEDUPLICATED.inc(len(prompts) - len(pairs))
        if stream is not None:
            stream.begin(keys, known)
        computed = {}
        if missing:
            with work.timings.scoring() as start:
                computed = await self._compute(missing, work.terms, stream, start)
        if stream is not None:
            computed = stream.finish(computed)
        late = [prompt for key, prompt in missing.items() if key not in computed]
        ticket.done(work.reserved + (_tokens(late) if late else 0))
        logits = known | computed
        return [PairScore(logits.get(key), key in known) for key in keys]

    async def _compute(
        self,
        pairs: Mapping[bytes, Prompt],
        terms: _Terms,
        stream: ResultStream | None,
        on_start: Callable[[], None],
    ) -> dict[bytes, float]:
        """Logits by key, of the pairs that are scored before the deadline."""

        async def score(pairs: Mapping[bytes, Prompt]) -> dict[bytes, float]:
            scored: Sequence[float | None]
            try:
                scored = await self.scheduler.score(
                    list(pairs.values()),
                    key=terms.caller,
                    user=terms.user,
                    priority=terms.priority,
                    deadline=terms.deadline,
                    on_logit=None if stream is None else stream.on_logit(list(pairs)),
                    on_start=on_start,
                )
            except DeadlineExceeded as late:
                scored = late.logits
            _refuse_overflow(scored)
            rows = zip(pairs, scored, strict=True)
            logits = {key: logit for key, logit in rows if logit is not None}
            if self.counted:
                metrics.COMPUTED_PAIRS.inc(len(logits))
                metrics.COMPUTED_TOKENS.inc(_tokens([pairs[key] for key in logits]))
            if terms.shares:
                self.cache.store(logits)
            return logits

        if not terms.shares:
            return await score(pairs)
        return await self._flights.score(
            pairs,
            score,
            caller=f"{terms.caller}\0{terms.user}",
            priority=terms.priority,
            deadline=terms.deadline,
            # Another request's call gives nothing until all of it is scored.
            joins=not terms.partial,
        )

    def _refuse_too_many(self, requests: Sequence[RankRequest]) -> None:
        documents = sum([len(request.documents) for request in requests])
        if documents == 0:
            raise InvalidRequest("documents must not be empty", param="documents")
        if documents > self.max_documents:
            metrics.REFUSED.labels("request_documents").inc()
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


@dataclass(frozen=True, slots=True)
class _Terms:
    """What requests that are ranked together have in common.

    Attributes:
        deadline: the earliest of them.
        partial: whether all of them accept a partial answer.
        shares: whether all of them may use the cache and pairs of other requests.
        background: whether all of them are lines of batch jobs.
    """

    caller: str
    user: str
    priority: int
    deadline: float | None
    partial: bool
    shares: bool
    background: bool


@dataclass(slots=True)
class _Work:
    """Prompts to score, with everything that accounts for them.

    Attributes:
        reserved: tokens of the request that are admitted with these prompts and scored later.
        is_admitted: these prompts are what was reserved.
    """

    prompts: Sequence[Prompt]
    terms: _Terms
    ticket: Ticket
    limits: RateLimiter | None
    stream: ResultStream | None
    timings: StageTimings
    reserved: int = 0
    is_admitted: bool = False


def _terms(requests: Sequence[RankRequest]) -> _Terms:
    return _Terms(
        caller=requests[0].caller,
        user=requests[0].user,
        priority=min([request.priority for request in requests]),
        deadline=min(
            [request.deadline for request in requests if request.deadline is not None],
            default=None,
        ),
        partial=all(request.partial for request in requests),
        shares=all(request.cache for request in requests),
        background=all(request.background for request in requests),
    )


def _refuse_unfinished(
    terms: _Terms, by_request: Sequence[Sequence[ScoredDocument | None]]
) -> None:
    """Raise `DeadlineExceeded`, unless the caller accepts a partial answer and there is one."""
    results = [result for one in by_request for result in one]
    missing = results.count(None)
    if not missing:
        return
    metrics.ABANDONED_REQUESTS.labels("deadline").inc()
    if missing == len(results) or not terms.partial:
        raise DeadlineExceeded([None if result is None else result.logit for result in results])


def _refuse_overflow(logits: Sequence[float | None]) -> None:
    """Raise if a logit is no number: an overflow in half precision is not a score."""
    if not all(logit is None or math.isfinite(logit) for logit in logits):
        raise InternalError(
            "the model gave no number for a document; float16 overflows, --dtype bfloat16 does not"
        )


def _tokens(prompts: Iterable[Prompt]) -> int:
    return sum(len(prompt.prefix) + len(prompt.suffix) for prompt in prompts)


def _usage(
    documents: Sequence[ScoredDocument],
    units: Sequence[int],
    sentences: Sequence[ScoredDocument],
) -> RankUsage:
    pairs = [*documents, *sentences]
    return RankUsage(
        documents=len(documents),
        cached_documents=sum([document.cached for document in documents]),
        prompt_tokens=sum([pair.tokens for pair in pairs]),
        cached_tokens=sum([pair.cached_tokens for pair in pairs]),
        search_units=sum(units),
    )


def _count(ranking: RankResult) -> None:
    """Count an answered request in /metrics, with the figures of its answer."""
    usage = ranking.usage
    metrics.REQUEST_DOCUMENTS.observe(usage.documents)
    metrics.REQUEST_TOKENS.observe(usage.prompt_tokens)
    metrics.DOCUMENTS.inc(usage.documents)
    metrics.CACHED_DOCUMENTS.inc(usage.cached_documents)
    metrics.TOKENS.inc(usage.prompt_tokens)
    metrics.CACHED_TOKENS.inc(usage.cached_tokens)
    metrics.SEARCH_UNITS.inc(usage.search_units)
    metrics.TRUNCATED.inc(len(ranking.truncated))
    metrics.CHUNKED.inc(sum([result.chunks > 1 for result in ranking.documents]))
