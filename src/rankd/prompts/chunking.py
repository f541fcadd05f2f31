"""Which part of a document is read: cut, refused, or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankd.errors import TooLarge
from rankd.prompts.offsets import Span

# Chunks of the documents of one request; Cohere's own limit.
MAX_CHUNKS = 10_000


# Tokens of all of them, which overlap may multiply: they take 16 bytes each for a moment.
MAX_CHUNK_TOKENS = 16_000_000


@dataclass(frozen=True, slots=True)
class ChunkingRule:
    """How the documents of one ask are made to fit.

    Attributes:
        fits: tokens of a document that is read as one piece.
        limit: tokens of one piece of another.
        longest: of one piece, where more of them than `most` would be needed.
        most: pieces of one document.
        overlap: tokens that two neighbouring pieces share.
        at_start: whether the start of a document is what is always read.
        refuses: documents that do not fit.
    """

    fits: int
    limit: int
    longest: int
    most: int
    overlap: int
    at_start: bool
    refuses: bool

    @property
    def readable(self) -> int:
        """Tokens of one document that can be read; more than its chunks may have."""
        step = max(self.longest - self.overlap, 1)
        return max(self.fits, self.longest + min(self.most - 1, MAX_CHUNKS) * step)

    def count(self, tokens: int) -> int:
        """Pieces of a document; none begins where the one before already reached the end."""
        if tokens <= self.fits:
            return 1
        length, step = self._lengths(tokens)
        return min(self.most, 1 - (length - tokens) // step)

    def total(self, tokens: int) -> int:
        """Tokens of all its pieces; those that two share count in both."""
        if tokens <= self.fits:
            return tokens
        length, step = self._lengths(tokens)
        count = self.count(tokens)
        return min(count * length, tokens + (count - 1) * (length - step))

    def pieces(self, tokens: int) -> list[Span]:
        """What the model reads of a document, in its order."""
        if tokens <= self.fits:
            return [Span(0, tokens)]
        length, step = self._lengths(tokens)
        starts = (number * step for number in range(self.count(tokens)))
        pieces = [Span(start, min(start + length, tokens)) for start in starts]
        if self.at_start:
            return pieces
        return [Span(tokens - end, tokens - start) for start, end in reversed(pieces)]

    def _lengths(self, tokens: int) -> tuple[int, int]:
        """Of a piece of a document, and from its beginning to that of the next."""
        needed = self.overlap - (self.overlap - tokens) // self.most
        length = max(self.limit, min(needed, self.longest))
        return length, max(length - self.overlap, 1)


def refuse_many_chunks(count: int) -> None:
    """Raises `TooLarge` when the documents of one request make too many pieces."""
    if count > MAX_CHUNKS:
        raise TooLarge(
            f"the documents make {count:,} chunks; the limit is {MAX_CHUNKS:,}: "
            "lower max_chunks_per_doc",
            param="max_chunks_per_doc",
        )


def refuse_large_overlap(cut: Sequence[Sequence[Span]]) -> None:
    tokens = sum(end - start for pieces in cut if len(pieces) > 1 for start, end in pieces)
    if tokens > MAX_CHUNK_TOKENS:
        raise TooLarge(
            f"the chunks of the documents hold {tokens:,} tokens; the limit is "
            f"{MAX_CHUNK_TOKENS:,}: lower overlap_tokens",
            param="overlap_tokens",
        )
