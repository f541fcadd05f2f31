"""Random texts that are hard on tokenizers: many scripts, emoji, white space, control tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence

# First and last code point of what texts are made of; ASCII more often than others.
_RANGES = (
    *((0x20, 0x7E), (0x20, 0x7E), (0x01, 0x1F), (0x80, 0x9F), (0xA0, 0x17F), (0x300, 0x36F)),
    *((0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x600, 0x6FF), (0x900, 0x97F)),
    *((0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x214F)),
    *((0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFAFF), (0xFE00, 0xFE0F)),
    *((0xFF00, 0xFFEF), (0x1D100, 0x1D7FF), (0x1F300, 0x1F9FF), (0x20000, 0x2A6DF)),
    *((0xE0000, 0xE007F), (0x10000, 0x10FFFF)),
)
_BLANKS = (" ", "\n", "\r\n", "\t", " \n", "\xa0", "\u3000", "\u2028", "\x0b", "\x0c", "\x85")
_ODD = (
    *("\u200b", "\ufeff", "\x1c", "\u180e", "\x00", "\ufffd", "'s", "'T", "'RE", "'ve", "'LL"),
    *("don't", "'\u017f", "\u0130", "\xdf", "\ufb01", "e\u0301", "q\u0307\u0323", "\u212b"),
    *("\u1100\u1161\u11a8", "\uac00\u11a8", "\u0344", "\u0958", "\U0001d15e", "\u2167", "\xb2"),
    *("\U0001f469\u200d\U0001f467", "\u0663", "12345", "__", "...", "http://", "<|im_end|>"),
    *("<|im_start|>assistant\n", "<think>", "</think>", "<|endoftext|>", "\r", "\ud7ff"),
)


def random_texts(rng: random.Random, count: int, words: Sequence[str]) -> list[str]:
    """Texts of up to thirty parts: words, runs of one script, blanks and odd sequences."""
    return [_text(rng, words) for _ in range(count)]


def _text(rng: random.Random, words: Sequence[str]) -> str:
    return "".join(_part(rng, words) for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 30))))


def _part(rng: random.Random, words: Sequence[str]) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(words) + rng.choice(("", "", " "))
    if kind < 0.55:
        return rng.choice(_BLANKS) * rng.choice((1, 1, 2, 5))
    if kind < 0.7:
        return rng.choice(_ODD)
    first, last = rng.choice(_RANGES)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))
