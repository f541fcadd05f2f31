"""How many tokens a text has at least, or about, without encoding it."""

from __future__ import annotations

import unicodedata

# Characters of a token, when a request's price is guessed: words have four to six. Where the
# guess is too low, only time is lost.
_GUESSED, _GUESSED_BEYOND_ASCII = 6, 4


# Characters by which documents are told apart before they are encoded.
START_CHARACTERS = 64


def estimate_tokens(text: str) -> int:
    return len(text) // (_GUESSED if text.isascii() else _GUESSED_BEYOND_ASCII)


def start_of(document: str, limit: int, *, at_start: bool) -> str:
    """What tells one document from others, of the end that is read.

    Short enough that `limit` tokens hold more, and spelled as tokenizers spell it: two
    spellings of one text are one text.
    """
    size = min(limit // 8, START_CHARACTERS)
    longest = 4 * size + 4  # Of characters that are composed to `size`.
    start = 0 if at_start else max(len(document) - longest, 0)
    part = document[start : start + longest].lower()
    if not part.isascii():
        part = unicodedata.normalize("NFC", part)
    return part[:size] if at_start else part[len(part) - min(size, len(part)) :]
