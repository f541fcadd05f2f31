"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from itertools import islice

from rankd import metrics
from rankd.admission import Admission
from rankd.engines.base import Engine, whose
from rankd.errors import InternalError, InvalidRequest, TooLarge
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
        caller = asks[0].caller
        with self.admission.enter(self.encoder.fewest_tokens(asks)) as ticket:
            async with self.limits.call(caller):
                began = time.perf_counter()
                encoded = await self.encoder.encode(asks)
                _refuse_too_many_pieces(encoded)
                ready = time.perf_counter()
                unique = _unique(prompt for one in encoded for prompt in one.prompts)
                tokens = sum(map(len, unique))
                ticket.admit(tokens)
                await self.limits.charge(caller, tokens)
                scores = await self._score(asks, list(unique))
                ticket.done()
        scored = time.perf_counter()
        logits = [scores[unique[prompt]] for one in encoded for prompt in one.prompts]
        rest = iter(logits)
        groups = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _count(groups)
        return Ranking(groups, ready - began, scored - ready)

    async def _score(self, asks: Sequence[Ask], prompts: Sequence[Prompt]) -> list[float]:
        """A logit for each prompt, in order."""
        with whose(asks[0]):
            logits = await self.engine.score(
                prompts,
                priority=min(ask.priority for ask in asks),
                deadline=min(
                    (ask.deadline for ask in asks if ask.deadline is not None), default=None
                ),
            )
        _refuse_nonsense(logits)
        return logits

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


def _refuse_nonsense(logits: Sequence[float]) -> None:
    """An overflow in half precision must not be sorted and served as a score."""
    if not all(map(math.isfinite, logits)):
        raise InternalError(
            "the model gave no number for a document; float16 overflows, --dtype bfloat16 does not"
        )


def _verdicts(encoded: Encoded, logits: Sequence[float]) -> list[Verdict]:
    pairs = iter(zip(logits, encoded.prompts, strict=True))
    rows = zip(
        encoded.pieces, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        _verdict(index, list(islice(pairs, pieces)), whole, kept, longer)
        for index, (pieces, whole, kept, longer) in enumerate(rows)
    ]


def _verdict(
    index: int, pieces: Sequence[tuple[float, Prompt]], whole: int, kept: int, longer: bool
) -> Verdict:
    """Of a document that was read in pieces, the best piece counts."""
    best = max(logit for logit, _ in pieces)
    return Verdict(index, best, sum(len(prompt) for _, prompt in pieces), whole, kept, longer)


def _count(verdicts: Sequence[Sequence[Verdict]]) -> None:
    every = [verdict for one in verdicts for verdict in one]
    metrics.DOCUMENTS.inc(len(every))
    metrics.TOKENS.inc(sum(verdict.tokens for verdict in every))
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in every))
