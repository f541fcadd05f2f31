"""From the bytes that tokens spell back to the characters of the text they were made of.

A token may end within a character, and a tokenizer's normalizer composes characters and
lowers letters, so bytes, normalized characters and characters of the text are three counts.
What is told here holds all that was read: a character of which a token has a part, and a
letter with every one of its marks where the normalizer may have composed some of them.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

# The bytes in UTF-8 that go on with a character.
_WITHIN = bytes(range(0x80, 0xC0))

# Characters whose origins are sought at a time.
_BLOCK = 128

# Marks beyond which a letter is none.
_MOST_MARKS = 1_024


class Span(NamedTuple):
    """A part of a text, or of its tokens: the first, and the one behind the last."""

    start: int
    end: int


def characters_of(parts: Sequence[Span], spelled: Callable[[int, int], bytes]) -> list[Span]:
    """Where parts of a text's tokens stand in it; a divided character is in both.

    Args:
        spelled: the text that the tokens from one place to another are, in UTF-8.
    """
    borders = sorted({0, *(border for part in parts for border in part)})
    before: dict[int, int] = {}  # Characters that begin before each border,
    divided: dict[int, bool] = {}  # ... and whether the last of them goes on behind it.
    count = 0
    for border, following in pairwise([*borders, borders[-1] + 1]):
        text = spelled(border, following)
        before[border] = count
        divided[border] = text[:1] in _CONTINUING
        count += len(text.translate(None, _WITHIN))
    return [Span(before[start] - divided[start], before[end]) for start, end in parts]


_CONTINUING = frozenset(bytes([byte]) for byte in _WITHIN)


class Origins:
    """Where the characters of a normalized text come from.

    Letters with their marks are normalized one by one where that is asked for; the others
    are only counted, in blocks. (The library remembers what came from where, but of a
    composed letter only the first of its characters.)

    Args:
        text: before it was normalized.
        normalize: composes characters and lowers letters, nothing else.
    """

    def __init__(self, text: str, normalize: Callable[[str], str]) -> None:
        self._text = text
        self._normalize = normalize
        # Where each block begins in the text and in the normalized text; at last the ends.
        self._starts = list(_blocks(text))
        blocks = (text[start:end] for start, end in pairwise(self._starts))
        self._normalized = [0, *accumulate(len(normalize(block)) for block in blocks)]
        self._latest: tuple[int, _Letters] | None = None

    def of(self, place: Span) -> Span:
        """The characters that a part of the normalized text was made of."""
        start, end = self._around(place.start).start, self._around(place.end).end
        return Span(start, max(start, end))

    def _around(self, position: int) -> Span:
        """The letter that a border divides in the normalized text; else where it is, twice."""
        number = bisect_right(self._normalized, position) - 1
        start, inner = self._starts[number], position - self._normalized[number]
        if not inner:
            return Span(start, start)
        if self._latest is None or self._latest[0] != number:
            block = self._text[start : self._starts[number + 1]]
            self._latest = (number, _Letters(block, self._normalize))
        first, behind = self._latest[1].around(inner)
        return Span(start + first, start + behind)


class _Letters:
    """Where the letters of a short text begin, and where they do when it is normalized."""

    def __init__(self, text: str, normalize: Callable[[str], str]) -> None:
        self._same = normalize(text) == text
        if not self._same:
            begins = (place for place, one in enumerate(text) if place and not _goes_on(one))
            self._starts = [0, *begins, len(text)]
            letters = (text[start:end] for start, end in pairwise(self._starts))
            sizes = (1 if letter.isascii() else len(normalize(letter)) for letter in letters)
            self._normalized = [0, *accumulate(sizes)]

    def around(self, position: int) -> Span:
        if self._same:
            return Span(position, position)
        before = bisect_right(self._normalized, position) - 1
        behind = bisect_left(self._normalized, position)
        return Span(self._starts[before], self._starts[behind])


def _blocks(text: str) -> Iterator[int]:
    """Where blocks begin and the last one ends; nothing is composed across a border."""
    yield 0
    place = _BLOCK
    while place < len(text):
        while place < len(text) and _goes_on(text[place]):
            place += 1
        if place < len(text):
            yield place
        place += _BLOCK
    yield len(text)


def whole_letters(text: str, place: Span) -> Span:
    """A place without half a letter: with the marks behind it, and with what marks are on."""
    start, end = place
    far = start - _MOST_MARKS
    while max(far, 0) < start < len(text) and _goes_on(text[start]):
        start -= 1
    far = end + _MOST_MARKS
    while start < end < min(far, len(text)) and _goes_on(text[end]):
        end += 1
    return Span(start, max(start, end))


def _goes_on(character: str) -> bool:
    """Whether it may be composed with characters before it.

    Marks are, and the second and third letters of Korean syllables.
    """
    if character.isascii():
        return False
    return "\u1160" <= character <= "\u11ff" or unicodedata.category(character)[0] == "M"
