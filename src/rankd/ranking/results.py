"""From logits to scored documents: the best chunk of each, all at once or as a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, compress, islice, repeat
from typing import NamedTuple

from rankd.prompts import EncodedRequest
from rankd.types import Prompt, ScoredDocument


class PairScore(NamedTuple):
    """The score of one prompt.

    Attributes:
        logit: None if it was not scored before the deadline.
        cached: whether an earlier request computed it.
    """

    logit: float | None
    cached: bool


def scored_documents(
    encoded: EncodedRequest, scores: Sequence[PairScore]
) -> list[ScoredDocument | None]:
    """The documents of a request, in its order; None where the deadline came first.

    Args:
        scores: of its prompts, in their order.
    """
    spans = encoded.spans or repeat(None, len(scores))
    rows = iter(zip(scores, encoded.prompts, spans, strict=True))
    documents = zip(
        encoded.chunks, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        _scored_document(index, list(islice(rows, chunks)), tokens, kept, longer)
        for index, (chunks, tokens, kept, longer) in enumerate(documents)
    ]


def _scored_document(
    index: int,
    chunks: Sequence[tuple[PairScore, Prompt, tuple[int, int] | None]],
    document_tokens: int,
    kept_tokens: int,
    longer: bool,
) -> ScoredDocument | None:
    """A document from its chunks: the best one counts. None unless all of them have a logit."""
    logits = [score.logit for score, _, _ in chunks if score.logit is not None]
    if len(logits) < len(chunks):
        return None
    best = max(logits)
    best_chunk = logits.index(best)
    tokens = [len(prompt.prefix) + len(prompt.suffix) for _, prompt, _ in chunks]
    cached = [score.cached for score, _, _ in chunks]
    return ScoredDocument(
        index,
        best,
        tokens=sum(tokens),
        document_tokens=document_tokens,
        kept_tokens=kept_tokens,
        longer=longer,
        cached=all(cached),
        cached_tokens=sum(compress(tokens, cached)),
        chunks=len(chunks),
        chunk=best_chunk,
        span=chunks[best_chunk][2],
    )


class ResultStream:
    """Passes on each document once, when the last of its chunks is scored.

    A logit that was passed on does not change: if the engine dies and scores a pair again, the
    first logit counts.
    """

    def __init__(
        self, encoded: EncodedRequest, on_result: Callable[[ScoredDocument], None]
    ) -> None:
        self._encoded = encoded
        self._on_result = on_result
        self._scores: dict[bytes, PairScore] = {}
        self._keys: Sequence[bytes] = ()
        self._waiting: dict[bytes, list[int]] = {}
        self._missing_chunks = list(encoded.chunks)
        self._first_prompt = [0, *accumulate(encoded.chunks)]

    def begin(self, keys: Sequence[bytes], known: Mapping[bytes, float]) -> None:
        """Pass on the documents that are known already.

        Args:
            keys: of the prompts, in their order.
            known: logits by key.
        """
        self._keys = keys
        for key, document in zip(keys, self._document_of_prompts(), strict=True):
            self._waiting.setdefault(key, []).append(document)
        for key, logit in known.items():
            self._receive(key, PairScore(logit, True))

    def on_logit(self, keys: Sequence[bytes]) -> Callable[[int, float], None]:
        """A callback for the scheduler, for prompts with these keys."""

        def on_logit(index: int, logit: float) -> None:
            if math.isfinite(logit):  # Others end the call.
                self._receive(keys[index], PairScore(logit, False))

        return on_logit

    def finish(self, computed: Mapping[bytes, float]) -> dict[bytes, float]:
        """Pass on the rest; returns the computed logits, as they were passed on."""
        for key, logit in computed.items():
            self._receive(key, PairScore(logit, False))
        return {
            key: score.logit
            for key, score in self._scores.items()
            if score.logit is not None and not score.cached
        }

    def _document_of_prompts(self) -> list[int]:
        return [index for index, chunks in enumerate(self._encoded.chunks) for _ in range(chunks)]

    def _receive(self, key: bytes, score: PairScore) -> None:
        if key in self._scores:
            return
        self._scores[key] = score
        for document in self._waiting[key]:
            self._missing_chunks[document] -= 1
            if not self._missing_chunks[document]:
                self._on_result(self._scored_document(document))

    def _scored_document(self, index: int) -> ScoredDocument:
        encoded = self._encoded
        prompts = range(self._first_prompt[index], self._first_prompt[index + 1])
        document = _scored_document(
            index,
            [
                (self._scores[self._keys[prompt]], encoded.prompts[prompt], encoded.span(prompt))
                for prompt in prompts
            ],
            encoded.document_tokens[index],
            encoded.kept_tokens[index],
            encoded.longer[index],
        )
        assert document is not None
        return document
