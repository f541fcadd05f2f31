"""From logits to scored documents: the best chunk of each, all at once or as a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, compress, islice, repeat
from typing import NamedTuple

from rankd.prompts import EncodedRequest
from rankd.types import Prompt, ScoredDocument


class PairScore(NamedTuple):
    """A pair's logit, None when it came too late, and whether an earlier request computed it."""

    logit: float | None
    cached: bool


def scored_documents(
    encoded: EncodedRequest, scored: Sequence[PairScore]
) -> list[ScoredDocument | None]:
    """One for each document; None where it was not scored in time."""
    spans = encoded.spans or repeat(None, len(scored))
    pairs = iter(zip(scored, encoded.prompts, spans, strict=True))
    rows = zip(
        encoded.chunks, encoded.document_tokens, encoded.kept_tokens, encoded.longer, strict=True
    )
    return [
        scored_document(index, list(islice(pairs, pieces)), whole, kept, longer)
        for index, (pieces, whole, kept, longer) in enumerate(rows)
    ]


def scored_document(
    index: int,
    pieces: Sequence[tuple[PairScore, Prompt, tuple[int, int] | None]],
    whole: int,
    kept: int,
    longer: bool,
) -> ScoredDocument | None:
    """Of a document that was read in pieces, the best piece counts; it may be any of them."""
    logits = [scored.logit for scored, _, _ in pieces if scored.logit is not None]
    if len(logits) < len(pieces):
        return None
    best = max(logits)
    piece = logits.index(best)
    tokens = [len(prompt.prefix) + len(prompt.suffix) for _, prompt, _ in pieces]
    cached = [scored.cached for scored, _, _ in pieces]
    return ScoredDocument(
        index,
        best,
        tokens=sum(tokens),
        document_tokens=whole,
        kept_tokens=kept,
        longer=longer,
        cached=all(cached),
        cached_tokens=sum(compress(tokens, cached)),
        chunks=len(pieces),
        chunk=piece,
        span=pieces[piece][2],
    )


class ResultStream:
    """Tells of each document once, when the last of its pieces is scored.

    What was told stays so: a pair that an engine scores again, because it died meanwhile,
    keeps its first logit.
    """

    def __init__(self, encoded: EncodedRequest, tell: Callable[[ScoredDocument], None]) -> None:
        self._encoded = encoded
        self._on_result = tell
        self._scored: dict[bytes, PairScore] = {}
        self._keys: Sequence[bytes] = ()
        self._waiting: dict[bytes, list[int]] = {}
        self._missing = list(encoded.chunks)
        self._first = [0, *accumulate(encoded.chunks)]

    def begin(self, keys: Sequence[bytes], known: Mapping[bytes, float]) -> None:
        """Tell of what is known already.

        Args:
            keys: of the prompts, in their order.
        """
        self._keys = keys
        for place, document in enumerate(self._documents()):
            self._waiting.setdefault(keys[place], []).append(document)
        for key, logit in known.items():
            self._receive(key, PairScore(logit, True))

    def on_logit(self, keys: Sequence[bytes]) -> Callable[[int, float], None]:
        """What an engine tells of its logits, of the pairs with these keys."""

        def hear(place: int, logit: float) -> None:
            if math.isfinite(logit):  # The others end the call.
                self._receive(keys[place], PairScore(logit, False))

        return hear

    def finish(self, computed: Mapping[bytes, float]) -> dict[bytes, float]:
        """Tell of what was not heard of; returns what was computed as it was told."""
        for key, logit in computed.items():
            self._receive(key, PairScore(logit, False))
        return {
            key: one.logit
            for key, one in self._scored.items()
            if one.logit is not None and not one.cached
        }

    def _documents(self) -> list[int]:
        """For each prompt the document that it is of."""
        return [place for place, pieces in enumerate(self._encoded.chunks) for _ in range(pieces)]

    def _receive(self, key: bytes, scored: PairScore) -> None:
        if key in self._scored:
            return
        self._scored[key] = scored
        for document in self._waiting[key]:
            self._missing[document] -= 1
            if not self._missing[document]:
                self._on_result(self._verdict(document))

    def _verdict(self, document: int) -> ScoredDocument:
        encoded = self._encoded
        places = range(self._first[document], self._first[document + 1])
        result = scored_document(
            document,
            [
                (self._scored[self._keys[place]], encoded.prompts[place], encoded.span(place))
                for place in places
            ],
            encoded.document_tokens[document],
            encoded.kept_tokens[document],
            encoded.longer[document],
        )
        assert result is not None
        return result
