"""Offsets: from tokens to the characters of the text that they encode.

A token may end within a character, and a tokenizer's normalizer composes characters and lowers
letters. So there are three counts: bytes of tokens, characters of the normalized text, and
characters of the text. Spans here cover everything that was read: a character if a token has a
part of it, and a letter with all its combining marks if the normalizer may have composed them.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

# UTF-8 bytes that continue a character.
_CONTINUATION = bytes(range(0x80, 0xC0))
_CONTINUATION_BYTES = frozenset(bytes([byte]) for byte in _CONTINUATION)

# Characters in a block; see `Origins`.
_BLOCK = 128

# Marks on one letter that are kept together; no language has that many.
_MAX_MARKS = 1_024


class Span(NamedTuple):
    """A range of characters or tokens: the first, and the one after the last."""

    start: int
    end: int


def character_spans(parts: Sequence[Span], decoded: Callable[[int, int], bytes]) -> list[Span]:
    """For each part of a text's tokens, its characters; a divided character is in both parts.

    Args:
        parts: spans of tokens.
        decoded: the UTF-8 bytes of the tokens from one index to another.
    """
    borders = sorted({0, *(border for part in parts for border in part)})
    before: dict[int, int] = {}  # For each border, the characters that begin before it,
    divided: dict[int, bool] = {}  # ... and whether it divides the last of them.
    count = 0
    for border, following in pairwise([*borders, borders[-1] + 1]):
        text = decoded(border, following)
        before[border] = count
        divided[border] = text[:1] in _CONTINUATION_BYTES
        count += len(text.translate(None, _CONTINUATION))
    return [Span(before[start] - divided[start], before[end]) for start, end in parts]


class Origins:
    """Maps spans of a normalized text to spans of the original text.

    The text is split into blocks, whose normalized lengths are counted. Only within blocks
    that contain a border is each letter normalized. (The tokenizers library maps them too,
    but a composed letter only to the first of its characters.)

    Args:
        text: the original text.
        normalize: composes characters and lowers letters, nothing else.
    """

    def __init__(self, text: str, normalize: Callable[[str], str]) -> None:
        self._text = text
        self._normalize = normalize
        # Starts of the blocks in both texts; the last entries are the lengths of the texts.
        self._starts = list(_block_starts(text))
        blocks = (text[start:end] for start, end in pairwise(self._starts))
        self._normalized_starts = [0, *accumulate(len(normalize(block)) for block in blocks)]
        self._last_block: tuple[int, _Letters] | None = None

    def of(self, span: Span) -> Span:
        """The original characters of a span of the normalized text."""
        start, end = self._around(span.start).start, self._around(span.end).end
        return Span(start, max(start, end))

    def _around(self, position: int) -> Span:
        """The letter that a normalized position divides; an empty span if it divides none."""
        block = bisect_right(self._normalized_starts, position) - 1
        start, offset = self._starts[block], position - self._normalized_starts[block]
        if not offset:
            return Span(start, start)
        if self._last_block is None or self._last_block[0] != block:
            text = self._text[start : self._starts[block + 1]]
            self._last_block = (block, _Letters(text, self._normalize))
        first, behind = self._last_block[1].around(offset)
        return Span(start + first, start + behind)


class _Letters:
    """Where each letter of a block begins, in the block and in the normalized block."""

    def __init__(self, text: str, normalize: Callable[[str], str]) -> None:
        self._is_normal = normalize(text) == text
        if not self._is_normal:
            starts = (
                index
                for index, character in enumerate(text)
                if index and not _is_composable(character)
            )
            self._starts = [0, *starts, len(text)]
            letters = (text[start:end] for start, end in pairwise(self._starts))
            sizes = (1 if letter.isascii() else len(normalize(letter)) for letter in letters)
            self._normalized_starts = [0, *accumulate(sizes)]

    def around(self, position: int) -> Span:
        """The letter that a normalized position divides; an empty span if it divides none."""
        if self._is_normal:
            return Span(position, position)
        before = bisect_right(self._normalized_starts, position) - 1
        behind = bisect_left(self._normalized_starts, position)
        return Span(self._starts[before], self._starts[behind])


def _block_starts(text: str) -> Iterator[int]:
    """Starts of blocks, then the length of the text; no letter is in two blocks."""
    yield 0
    start = _BLOCK
    while start < len(text):
        while start < len(text) and _is_composable(text[start]):
            start += 1
        if start < len(text):
            yield start
        start += _BLOCK
    yield len(text)


def whole_characters(text: str, span: Span) -> Span:
    """A span that divides no letter: extended to the base letter and to all marks."""
    start, end = span
    limit = start - _MAX_MARKS
    while max(limit, 0) < start < len(text) and _is_composable(text[start]):
        start -= 1
    limit = end + _MAX_MARKS
    while start < end < min(limit, len(text)) and _is_composable(text[end]):
        end += 1
    return Span(start, max(start, end))


def _is_composable(character: str) -> bool:
    """Whether it may be composed with characters before it.

    True for combining marks, and for the second and third letters of Korean syllables.
    """
    if character.isascii():
        return False
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character)[0] == "M"
