"""The desk: one verb. Asks in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from rankd import metrics
from rankd.engines.base import Engine
from rankd.errors import InternalError, InvalidRequest, TooLarge
from rankd.prompts import Encoded, PromptEncoder
from rankd.types import Ask, Prompt, Verdict


class Ranker:
    """Decides how much is taken in, and turns logits into verdicts.

    Attributes:
        engine: what scores; it is ready.
        encoder: what makes its prompts.
        max_documents: in one request.
    """

    def __init__(self, encoder: PromptEncoder, engine: Engine, *, max_documents: int) -> None:
        self.engine = engine
        self.encoder = encoder
        self.max_documents = max_documents

    async def rank(self, ask: Ask) -> list[Verdict]:
        """One verdict for each document, in the order of the request.

        Raises:
            RankError: a limit is passed, the deadline too, or the engine is down.
        """
        [verdicts] = await self.rank_all([ask])
        return verdicts

    async def rank_all(self, asks: Sequence[Ask]) -> list[list[Verdict]]:
        """Several asks of one request: taken together, or refused together."""
        self._refuse_too_many(asks)
        encoded = await self.encoder.encode(asks)
        # Equal pairs are scored once: it saves work, and only then are their logits the
        # same to the last bit, so that they keep the order of the request.
        places: dict[Prompt, int] = {}
        order = [
            places.setdefault(prompt, len(places)) for one in encoded for prompt in one.prompts
        ]
        scored = await self.engine.score(
            list(places),
            priority=min(ask.priority for ask in asks),
            deadline=min((ask.deadline for ask in asks if ask.deadline is not None), default=None),
        )
        _refuse_nonsense(scored)
        rest = iter([scored[place] for place in order])
        verdicts = [_verdicts(one, list(islice(rest, len(one.prompts)))) for one in encoded]
        _count(verdicts)
        return verdicts

    def _refuse_too_many(self, asks: Sequence[Ask]) -> None:
        documents = sum(len(ask.documents) for ask in asks)
        if documents == 0:
            raise InvalidRequest("documents must not be empty", param="documents")
        if documents > self.max_documents:
            raise TooLarge(
                f"{documents:,} documents in one request; the limit is {self.max_documents:,}",
                param="documents",
            )


def _refuse_nonsense(logits: Sequence[float]) -> None:
    """An overflow in half precision must not be sorted and served as a score."""
    if not all(map(math.isfinite, logits)):
        raise InternalError(
            "the model gave no number for a document; float16 overflows, --dtype bfloat16 does not"
        )


def _verdicts(encoded: Encoded, logits: Sequence[float]) -> list[Verdict]:
    rows = zip(logits, encoded.prompts, encoded.document_tokens, encoded.kept_tokens, strict=True)
    return [
        Verdict(index, logit, len(prompt), whole, kept)
        for index, (logit, prompt, whole, kept) in enumerate(rows)
    ]


def _count(verdicts: Sequence[Sequence[Verdict]]) -> None:
    every = [verdict for one in verdicts for verdict in one]
    metrics.DOCUMENTS.inc(len(every))
    metrics.TOKENS.inc(sum(verdict.tokens for verdict in every))
    metrics.TRUNCATED.inc(sum(verdict.truncated for verdict in every))
