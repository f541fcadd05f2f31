"""Splits texts into sentences, in linear time; the rules of a sentence are sentencex's.

sentencex knows abbreviations, decimals, quotes and the marks of some 300 languages. What is
around sentences is done here: empty lines and items of lists, which have no full stop at their
end, and texts without any mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from rankd.errors import InvalidRequest
from rankd.prompts.offsets import Span

# Longest sentence, in characters; a longer one is divided. Also the most that sentencex gets at
# a time: its time grows with the square of the number of quotes.
MAX_CHARACTERS = 2_000

_BLANKS = r"[ \t\u3000]*"
_NUMBER = r"[(（]?[0-9]{1,3}(?:[.)](?=[ \t])|[、．）])"
_MARK = rf"(?:[-*+](?=[ \t])|[•·‣◦#>|]|{_NUMBER})"

# An empty line, or the line break before an item of a list, a heading, a quote or a table's row.
_BLOCK_BREAK = re.compile(rf"\r?\n{_BLANKS}(?=\r?\n)|\r?\n(?={_BLANKS}{_MARK})")

# The number of an item, whose full stop ends no sentence.
_ITEM = re.compile(rf"{_BLANKS}{_NUMBER}")

# The rules for English hold for Chinese and Japanese, too; abbreviations are English ones.
_LANGUAGE = "en"

_Boundaries = Sequence[Mapping[str, Any]]


def sentences(text: str) -> list[Span]:
    """The sentences of a text, in its order, without the white space around them.

    Offsets are in code points. Every character that is not white space is in one sentence.

    Raises:
        InvalidRequest: sentencex is not installed.
    """
    boundaries = _splitter()
    return [
        sentence
        for start, end in _blocks(text)
        for part in _parts(text, start, end, boundaries)
        for sentence in _stripped(text, part)
    ]


@cache
def _splitter() -> Callable[[str, str], _Boundaries]:
    try:
        # On first use: most servers are never asked for spans.
        from sentencex import get_sentence_boundaries
    except ImportError:
        raise InvalidRequest(
            "relevant_spans needs the Python package sentencex, which this server lacks: "
            "install it there, or leave relevant_spans out",
            param="relevant_spans",
        ) from None
    found: Callable[[str, str], _Boundaries] = get_sentence_boundaries
    return found


def _blocks(text: str) -> Iterator[Span]:
    """Parts of a text that no sentence crosses."""
    start = 0
    for line_break in _BLOCK_BREAK.finditer(text):
        yield Span(start, line_break.start())
        start = line_break.end()
    yield Span(start, len(text))


def _parts(
    text: str, start: int, end: int, boundaries: Callable[[str, str], _Boundaries]
) -> Iterator[Span]:
    """The sentences of a block, with the white space around them.

    A window of the block is split at a time. Its last sentence may go on behind the window, so
    the next window begins with it.
    """
    item = _ITEM.match(text, start, end)
    read = item.end() if item else start
    while start < end:
        window = min(start + MAX_CHARACTERS, end)
        found = boundaries(_LANGUAGE, text[read:window])
        starts = sorted({start, *(read + row["start_index"] for row in found[1:])})
        if window == end:
            starts.append(end)
        elif len(starts) == 1:  # No sentence ends in the window.
            starts.append(_last_blank(text, start, window))
        yield from map(Span, starts, starts[1:])
        start = read = starts[-1]


def _last_blank(text: str, start: int, end: int) -> int:
    """The end of the last word of a part; its own end if it has only one word."""
    for position in range(end - 1, start + (end - start) // 2, -1):
        if text[position].isspace():
            return position + 1
    return end


def _stripped(text: str, part: Span) -> Iterator[Span]:
    """The part without white space at its ends, if anything is left."""
    found = text[part.start : part.end]
    if words := found.strip():
        start = part.start + len(found) - len(found.lstrip())
        yield Span(start, start + len(words))
