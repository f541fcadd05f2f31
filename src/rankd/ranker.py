"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from itertools import islice

from rankd import metrics
from rankd.admission import Admission
from rankd.engines.base import Engine, whose
from rankd.errors import DeadlineExceeded, InternalError, InvalidRequest, TooLarge
from rankd.limits import Limits
from rankd.prompts import Encoded, PromptEncoder
from rankd.types import Ask, Prompt, Ranking, Verdict

# Pieces of the documents of one request; Cohere's own limit.
_MOST_PIECES = 10_000


class Ranker:
    """Decides how much is taken in, and turns logits into verdicts.

    Attributes:
        engine: what scores; it is ready.
        encoder: what makes its prompts.
        max_documents: in one request.
        admission: what may wait; without limits until someone sets them.
        limits: what each caller may ask for, likewise.
    """

    def __init__(self, encoder: PromptEncoder, engine: Engine, *, max_documents: int) -> None:
        self.engine = engine
        self.encoder = encoder
        self.max_documents = max_documents
        self.admission = Admission()
        self.limits = Limits()

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
        caller = asks[0].caller
        with self.admission.enter(self.encoder.fewest_tokens(asks)) as ticket:
            async with self.limits.call(caller):
                began = time.perf_counter()
                encoded = await self._encode(asks)
                _refuse_too_many_pieces(encoded)
                ready = time.perf_counter()
                unique = _unique(prompt for one in encoded for prompt in one.prompts)
                tokens = sum(map(len, unique))
                ticket.admit(tokens)
                await self.limits.charge(caller, tokens)
                scores = await self._score(asks, list(unique))
                late = sum(len(prompt) for prompt, place in unique.items() if scores[place] is None)
                ticket.done(late)
        scored = time.perf_counter()
        logits = [scores[unique[prompt]] for one in encoded for prompt in one.prompts]
        rest = iter(logits)
        judged = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _refuse_unfinished(asks, judged)
        groups = [[verdict for verdict in one if verdict is not None] for one in judged]
        _count(groups)
        return Ranking(groups, ready - began, scored - ready)

    async def _encode(self, asks: Sequence[Ask]) -> list[Encoded]:
        deadline = _deadline(asks)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                return await self.encoder.encode(asks)
        except TimeoutError:
            metrics.ABANDONED_REQUESTS.labels("deadline").inc()
            raise DeadlineExceeded([None] * sum(len(ask.documents) for ask in asks)) from None

    async def _score(
        self, asks: Sequence[Ask], prompts: Sequence[Prompt]
    ) -> Sequence[float | None]:
        """A logit for each prompt, in order; None where the deadline came first."""
        scored: Sequence[float | None]
        try:
            with whose(asks[0]):
                scored = await self.engine.score(
                    prompts,
                    priority=min(ask.priority for ask in asks),
                    deadline=_deadline(asks),
                )
        except DeadlineExceeded as late:
            scored = late.logits
        _refuse_nonsense(scored)
        return scored

    def _refuse_too_many(self, asks: Sequence[Ask]) -> None:
        documents = sum(len(ask.documents) for ask in asks)
        if documents == 0:
            raise InvalidRequest("documents must not be empty", param="documents")
        if documents > self.max_documents:
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


def _unique(prompts: Iterable[Prompt]) -> dict[Prompt, int]:
    """Each pair once, with its place.

    Equal pairs are scored once: it saves work, and only then are their logits the
    same to the last bit, so that they keep the order of the request.
    """
    places: dict[Prompt, int] = {}
    for prompt in prompts:
        places.setdefault(prompt, len(places))
    return places


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


def _verdicts(encoded: Encoded, logits: Sequence[float | None]) -> list[Verdict | None]:
    """One for each document; None where it was not scored in time."""
    pairs = iter(zip(logits, encoded.prompts, strict=True))
    rows = zip(
        encoded.pieces, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        _verdict(index, list(islice(pairs, pieces)), whole, kept, longer)
        for index, (pieces, whole, kept, longer) in enumerate(rows)
    ]


def _verdict(
    index: int,
    pieces: Sequence[tuple[float | None, Prompt]],
    whole: int,
    kept: int,
    longer: bool,
) -> Verdict | None:
    """Of a document that was read in pieces, the best piece counts; it may be any of them."""
    logits = [logit for logit, _ in pieces if logit is not None]
    if len(logits) < len(pieces):
        return None
    tokens = sum(len(prompt) for _, prompt in pieces)
    return Verdict(index, max(logits), tokens, whole, kept, longer)


def _count(verdicts: Sequence[Sequence[Verdict]]) -> None:
    every = [verdict for one in verdicts for verdict in one]
    metrics.DOCUMENTS.inc(len(every))
    metrics.TOKENS.inc(sum(verdict.tokens for verdict in every))
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in every))
