"""Relevant spans: which sentences of the best documents answer the query.

A sentence is scored as a document of its own, under the prefix of its request. Its pair is
cached, deduplicated and paid for like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from rankd.errors import TooLarge
from rankd.prompts import EncodedRequest
from rankd.prompts.offsets import Span
from rankd.prompts.sentences import sentences
from rankd.types import (
    RankRequest,
    RelevantSpan,
    ScoredDocument,
    SpanOptions,
    best_first,
    rounded_all,
    sigmoids,
)

# Sentences of one request, as many as it may have chunks.
MAX_SENTENCES = 10_000

# Documents with fewer characters are split on the event loop, in less than 2 ms.
_MAX_INLINE_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class SentencePlan:
    """The sentences of a request's documents, and what they will cost at most.

    Attributes:
        request: the request that is ranked.
        options: which sentences are returned.
        sentences: for each document the sentences that the model read, as ranges of code points.
        tokens: estimate of the tokens of all pairs, for the `top_n` documents that cost most.
    """

    request: RankRequest
    options: SpanOptions
    sentences: Sequence[Sequence[Span]]
    tokens: int

    def chosen(self, documents: Sequence[ScoredDocument]) -> list[ScoredDocument]:
        """The documents that get spans, best first."""
        threshold = self.options.threshold
        kept = documents if threshold is None else threshold.kept(documents)
        return best_first(kept)[: self.options.top_n]

    def request_for(self, documents: Sequence[ScoredDocument]) -> RankRequest | None:
        """The request whose documents are the sentences of these; None: there are none.

        A sentence that the model cannot read at once is scored in chunks.
        """
        texts = [
            self.request.documents[document.index][start:end]
            for document in documents
            if not self._is_sentence(document)
            for start, end in self.sentences[document.index]
        ]
        if not texts:
            return None
        return replace(
            self.request,
            documents=tuple(texts),
            max_document_tokens=None,
            truncation="chunk",
            max_chunks=None,
            overlap=None,
            side=None,
            spans=None,
        )

    def with_spans(
        self, documents: Sequence[ScoredDocument], scored: Sequence[ScoredDocument | None]
    ) -> list[ScoredDocument]:
        """Documents with their spans, or without if a sentence was not scored in time.

        Args:
            scored: the sentences of `request_for(documents)`, in its order.
        """
        rows = iter(scored)
        found = []
        for document in documents:
            parts = self.sentences[document.index]
            if self._is_sentence(document):
                whole = [RelevantSpan(start, end, document.logit) for start, end in parts]
                found.append(replace(document, relevant_spans=self._relevant(whole)))
                continue
            own = [(part, next(rows)) for part in parts]
            spans = [_span(part, row) for part, row in own if row is not None]
            if len(spans) == len(own):
                document = replace(document, relevant_spans=self._relevant(spans))
            found.append(document)
        return found

    def _is_sentence(self, document: ScoredDocument) -> bool:
        """Whether the document is one sentence, so that its own score is the sentence's."""
        return document.chunks == 1 and len(self.sentences[document.index]) == 1

    def _relevant(self, spans: Sequence[RelevantSpan]) -> tuple[RelevantSpan, ...]:
        scores = rounded_all(sigmoids([span.logit for span in spans]))
        kept = [
            span
            for span, score in zip(spans, scores, strict=True)
            if score >= self.options.min_score
        ]
        # The sort is stable: equal sentences stay in the order of the text.
        kept.sort(key=lambda span: span.logit, reverse=True)
        return tuple(kept[: self.options.max_spans])


async def plan_spans(
    request: RankRequest, options: SpanOptions, encoded: EncodedRequest, suffix: int
) -> SentencePlan:
    """Find the sentences of a request's documents, before anything is scored.

    Args:
        encoded: the request's prompts, with `spans`.
        suffix: tokens of the template after the document.

    Raises:
        TooLarge: the `top_n` documents with the most sentences have too many.
        InvalidRequest: the library that splits texts is not installed.
    """
    read = list(map(_read_part, _chunks(encoded)))
    if sum(end - start for start, end in read) < _MAX_INLINE_CHARACTERS:
        found = _split(request.documents, read)
    else:
        found = await asyncio.to_thread(_split, request.documents, read)
    _refuse_many(sorted(map(len, found), reverse=True)[: options.top_n])
    frame = len(encoded.prompts[0].prefix) + suffix
    costs = [
        # A token that two sentences share becomes two.
        tokens + len(parts) * (frame + 1)
        for tokens, parts in zip(encoded.kept_tokens, found, strict=True)
        if len(parts) > 1
    ]
    estimate = sum(sorted(costs, reverse=True)[: options.top_n])
    return SentencePlan(request, options, found, estimate)


def _chunks(encoded: EncodedRequest) -> list[Sequence[Span]]:
    """The characters of each document's chunks."""
    assert encoded.spans is not None
    starts = [0, *accumulate(encoded.chunks)]
    return [encoded.spans[start:end] for start, end in pairwise(starts)]


def _read_part(chunks: Sequence[Span]) -> Span:
    """The part of a document that the model read."""
    return Span(chunks[0].start, chunks[-1].end)


def _split(texts: Sequence[str], read: Sequence[Span]) -> list[list[Span]]:
    """The sentences of each text's part; one that the part cuts off ends there."""
    return [
        [Span(start + first, start + last) for first, last in sentences(text[start:end])]
        for text, (start, end) in zip(texts, read, strict=True)
    ]


def _refuse_many(counts: Sequence[int]) -> None:
    if (count := sum(counts)) > MAX_SENTENCES:
        raise TooLarge(
            f"the documents have {count:,} sentences; the limit with relevant_spans is "
            f"{MAX_SENTENCES:,}: send a lower top_n, or fewer or shorter documents",
            param="relevant_spans",
        )


def _span(part: Span, scored: ScoredDocument) -> RelevantSpan:
    """A scored sentence; of one that was read in chunks, the best chunk."""
    start, end = (0, part.end - part.start) if scored.chunks == 1 else scored.span or (0, 0)
    return RelevantSpan(part.start + start, part.start + end, scored.logit)
