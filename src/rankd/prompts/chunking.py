"""Which tokens of a document are read: all, one end, or overlapping chunks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rankd.errors import TooLarge
from rankd.prompts.offsets import Span
from rankd.types import RankRequest, TruncationPolicy

# Chunks of all documents of one request; Cohere has the same limit.
MAX_CHUNKS = 10_000

# Tokens of all chunks of one request. Overlap multiplies tokens, and each takes 16 bytes.
MAX_CHUNK_TOKENS = 16_000_000


@dataclass(frozen=True, slots=True)
class ChunkingRule:
    """How the documents of one request are truncated or split. All sizes are in tokens.

    Attributes:
        max_whole_tokens: a document up to this size is read whole, as one chunk.
        chunk_tokens: size of the chunks of a longer document.
        max_chunk_tokens: size up to which chunks grow so that `max_chunks` cover a document.
        max_chunks: chunks of one document; 1 truncates it.
        overlap: tokens that two neighbouring chunks share.
        keeps_start: whether a truncated document loses its end (else its start).
        refuses: whether longer documents are an error.
    """

    max_whole_tokens: int
    chunk_tokens: int
    max_chunk_tokens: int
    max_chunks: int
    overlap: int
    keeps_start: bool
    refuses: bool

    @property
    def max_readable_tokens(self) -> int:
        """Upper bound of the tokens of one document that are read."""
        step = max(self.max_chunk_tokens - self.overlap, 1)
        chunked = self.max_chunk_tokens + min(self.max_chunks - 1, MAX_CHUNKS) * step
        return max(self.max_whole_tokens, chunked)

    def chunk_count(self, tokens: int) -> int:
        """Number of chunks of a document; no chunk begins after another reached the end."""
        if tokens <= self.max_whole_tokens:
            return 1
        size, step = self._size_and_step(tokens)
        return min(self.max_chunks, 1 - (size - tokens) // step)

    def total_tokens(self, tokens: int) -> int:
        """Tokens of all chunks of a document; shared tokens count in each chunk."""
        if tokens <= self.max_whole_tokens:
            return tokens
        size, step = self._size_and_step(tokens)
        count = self.chunk_count(tokens)
        return min(count * size, tokens + (count - 1) * (size - step))

    def chunks(self, tokens: int) -> list[Span]:
        """The chunks of a document, in its order."""
        if tokens <= self.max_whole_tokens:
            return [Span(0, tokens)]
        size, step = self._size_and_step(tokens)
        starts = (number * step for number in range(self.chunk_count(tokens)))
        chunks = [Span(start, min(start + size, tokens)) for start in starts]
        if self.keeps_start:
            return chunks
        return [Span(tokens - end, tokens - start) for start, end in reversed(chunks)]

    def split(self, lengths: Sequence[int]) -> list[list[Span]]:
        """The chunks of each document, by the documents' lengths.

        Raises:
            TooLarge: there are too many chunks, or their overlap makes too many tokens.
        """
        if (
            max(lengths, default=0) <= self.max_whole_tokens and len(lengths) <= MAX_CHUNKS
        ):  # The usual case.
            return [[Span(0, tokens)] for tokens in lengths]
        refuse_many_chunks(sum(self.chunk_count(tokens) for tokens in lengths))
        chunks = [self.chunks(tokens) for tokens in lengths]
        if self.overlap:
            refuse_large_overlap(chunks)
        return chunks

    def _size_and_step(self, tokens: int) -> tuple[int, int]:
        """Size of each chunk, and distance from the start of one to the start of the next."""
        needed = self.overlap - (self.overlap - tokens) // self.max_chunks
        size = max(self.chunk_tokens, min(needed, self.max_chunk_tokens))
        return size, max(size - self.overlap, 1)


@dataclass(frozen=True, slots=True)
class ChunkingDefaults:
    """The server's settings for documents that do not fit; a request overrides them.

    Attributes:
        policy: only its `truncation` and `side` are used.
        chunk_tokens: size of a chunk.
        overlap: tokens that two neighbouring chunks share.
    """

    policy: TruncationPolicy
    chunk_tokens: int
    overlap: int

    def rule(self, request: RankRequest, room: int) -> ChunkingRule:
        """The rule for one request.

        Args:
            room: tokens of a document that fit into a prompt.
        """
        max_whole = min(request.max_document_tokens or room, room)
        truncation = request.truncation or self.policy.truncation
        # As Cohere's API: a number of chunks alone means chunks as long as the model reads.
        only_count = request.truncation is None and request.max_chunks is not None
        size, overlap = max_whole, request.overlap or 0
        if truncation == "chunk" and request.max_document_tokens is None:
            size = min(self.chunk_tokens, room)
            default_overlap = min(self.overlap, size // 2)
            overlap = default_overlap if request.overlap is None else request.overlap
        splits = only_count or truncation == "chunk"
        return ChunkingRule(
            max_whole_tokens=max_whole,
            chunk_tokens=size,
            max_chunk_tokens=max_whole if request.max_chunks else size,
            max_chunks=(request.max_chunks or sys.maxsize) if splits else 1,
            overlap=overlap,
            keeps_start=(request.side or self.policy.side) != "left",
            refuses=truncation == "refuse" and not only_count,
        )


def refuse_many_chunks(count: int) -> None:
    """Raise `TooLarge` if the documents of one request make too many chunks."""
    if count > MAX_CHUNKS:
        raise TooLarge(
            f"the documents make {count:,} chunks; the limit is {MAX_CHUNKS:,}: "
            "lower max_chunks_per_doc",
            param="max_chunks_per_doc",
        )


def refuse_large_overlap(chunks: Sequence[Sequence[Span]]) -> None:
    """Raise `TooLarge` if the chunks of split documents have too many tokens in all.

    Args:
        chunks: for each document, its chunks.
    """
    split = (spans for spans in chunks if len(spans) > 1)
    tokens = sum(end - start for spans in split for start, end in spans)
    if tokens > MAX_CHUNK_TOKENS:
        raise TooLarge(
            f"the chunks of the documents hold {tokens:,} tokens; the limit is "
            f"{MAX_CHUNK_TOKENS:,}: lower overlap_tokens",
            param="overlap_tokens",
        )
