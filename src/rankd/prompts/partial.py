"""Encodes a text, or of a very long one only as much as can be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rankd.prompts.text_encoders import TextEncoder

# Characters encoded for each token that can be read. Words have four to six per token; for
# texts with more, the part is enlarged until it has enough tokens.
_CHARACTERS_PER_TOKEN = 16

# Tokens encoded beyond those that can be read, and then dropped: where a text is cut within a
# word, the last tokens differ from those of the whole text.
MARGIN = 1_000

# A letter before a character that ends a word in every byte-pair encoding.
_WORD_END = re.compile(r"[^\W\d_](?=[ \n.,，。、])")

# Characters that are searched for the end of a word.
_SEARCHED = 4_096


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of a text: all of them, or those at one end.

    Attributes:
        ids: the tokens that can be read, and some more.
        text: what was encoded: the whole text, or a part at one end.
        skipped: characters of the text before that part.
        before: tokens of the part that come before `ids`.
        longer: whether the text has more tokens than `ids`.
    """

    ids: Sequence[int]
    text: str
    skipped: int = 0
    before: Sequence[int] = ()
    longer: bool = False

    @property
    def count(self) -> str:
        """The number of tokens, for a message."""
        return f"more than {len(self.ids):,}" if self.longer else f"{len(self.ids):,}"


def encode_text(
    encoder: TextEncoder, text: str, readable: int | None = None, *, at_start: bool = True
) -> EncodedText:
    """The tokens of a text, as they are in the encoding of the whole text.

    A text that is much longer than what can be read is cut between two words, and the tokens
    near the cut are dropped. (Only in a text without words, such as a million times one
    letter, may its last tokens differ from those of the whole.)

    Args:
        readable: tokens that can be read; None encodes the whole text.
        at_start: whether they are read from the start of the text (else from its end).
    """
    size = _CHARACTERS_PER_TOKEN * ((readable or 0) + MARGIN)
    while readable is not None and size < len(text):
        part = _part(text, size, at_start=at_start)
        [ids] = encoder.encode([part])
        if len(ids) > readable + MARGIN:
            if at_start:
                return EncodedText(ids[:-MARGIN], part, longer=True)
            skipped = len(text) - len(part)
            return EncodedText(ids[MARGIN:], part, skipped, ids[:MARGIN], longer=True)
        size *= 4
    [ids] = encoder.encode([text])
    return EncodedText(ids, text)


def _part(text: str, size: int, *, at_start: bool) -> str:
    """About `size` characters at one end of a text, cut between two words if there are any."""
    cut = size if at_start else len(text) - size
    searched = text[max(cut - _SEARCHED, 0) : cut + 1]
    ends = [match.end() for match in _WORD_END.finditer(searched)]
    if ends:
        cut = max(cut - _SEARCHED, 0) + ends[-1]
    return text[:cut] if at_start else text[cut:]
