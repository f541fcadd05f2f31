"""Encoders that take text as text: no string in it becomes a control token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
import tiktoken
import tokenizers

from rankd.prompts.offsets import Origins, Span, character_spans, whole_characters
from rankd.prompts.tokenizer_json import Normalize, byte_pair_encoding, normalizer

# A longer run of white space is shortened to this many characters: tiktoken's regular
# expressions overflow their stack at about 600,000, and no model reads that many.
_MAX_BLANKS = 400_000

# The lookbehind keeps it linear: a run is looked at from its first character only.
_LONG_BLANKS = re.compile(rf"(?<!\s)\s{{{_MAX_BLANKS + 1},}}")

# Characters, such as a letter and its accents, that are composed to one.
_MAX_COMPOSED = 4


class TextEncoder(Protocol):
    """Encodes text as text: no string in it becomes a control token."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, in order."""
        ...

    def decode(self, ids: Sequence[int]) -> list[str]:
        """The text of each id; half a character becomes a replacement character."""
        ...

    def min_tokens(self, text: str) -> int:
        """A lower bound of a text's tokens, from its length alone."""
        ...

    def character_spans(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        """For each part of a text's tokens, its characters in the text.

        A character that a border divides belongs to the parts on both sides.

        Args:
            ids: all tokens of the text, or the first of them.
            parts: spans of `ids`.
        """
        ...


class BytePairEncoder:
    """`tiktoken` with the checkpoint's own vocabulary: the same ids, five times as fast."""

    def __init__(self, encoding: tiktoken.Encoding, normalize: Normalize) -> None:
        self._encode = encoding.encode_ordinary
        self._token_bytes = encoding.decode_single_token_bytes
        self._bytes = encoding.decode_bytes
        self._normalize = normalize
        # NFC leaves ASCII alone; a normalizer may lower it.
        self._keeps_ascii = normalize("A") == "A"
        self._max_token_bytes = max(map(len, encoding.token_byte_values()))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            self._encode(text)
            if self._keeps_ascii and len(text) <= _MAX_BLANKS and text.isascii()
            else self._encode(self._normalize(_shorten_blanks(text)))
            for text in texts
        ]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self._token_bytes(token).decode(errors="replace") for token in ids]

    def min_tokens(self, text: str) -> int:
        composed = 1 if text.isascii() else _MAX_COMPOSED
        return min(len(text), _MAX_BLANKS) // (self._max_token_bytes * composed)

    def character_spans(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        def decoded(start: int, end: int) -> bytes:
            return self._bytes(ids[start:end])

        short = _shorten_blanks(text)
        spans = character_spans(parts, decoded)
        if not short.isascii() and self._normalize(short) != short:
            origins = Origins(short, self._normalize)
            spans = [origins.of(span) for span in spans]
        return spans if len(short) == len(text) else _with_all_blanks(text, spans)


class GeneralEncoder:
    """Hugging Face `tokenizers`, for a tokenizer that is not a plain byte-pair encoding."""

    def __init__(self, spec: dict[str, Any]) -> None:
        # Without added tokens it recognizes no control token, whether marked special or not.
        plain = spec | {"added_tokens": [], "post_processor": None}
        plain |= {"truncation": None, "padding": None}
        self._tokenizer = tokenizers.Tokenizer.from_str(orjson.dumps(plain).decode())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([token], skip_special_tokens=False) for token in ids]

    def min_tokens(self, text: str) -> int:
        return 0  # A word that is not in the vocabulary may be one token, however long.

    def character_spans(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        # Encoded again, because offsets take longer than ids alone and are rarely wanted.
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        spans = [
            Span(offsets[start][0], offsets[end - 1][1]) if start < end else Span(0, 0)
            for start, end in parts
        ]
        return [whole_characters(text, span) for span in spans]


def text_encoder(spec: dict[str, Any]) -> TextEncoder:
    """The fastest encoder that gives exactly the ids of this `tokenizer.json`."""
    encoding = byte_pair_encoding(spec)
    normalize = normalizer(spec)
    if encoding is None or normalize is None:
        return GeneralEncoder(spec)
    return BytePairEncoder(encoding, normalize)


def _shorten_blanks(text: str) -> str:
    if len(text) <= _MAX_BLANKS:
        return text
    return _LONG_BLANKS.sub(lambda run: run.group()[:_MAX_BLANKS], text)


def _with_all_blanks(text: str, spans: Sequence[Span]) -> list[Span]:
    """Spans of a text with shortened blanks, as spans of the text itself."""
    removed = 0
    removals = []  # For each shortened run: where it ends in the short text, and `removed` there.
    for run in _LONG_BLANKS.finditer(text):
        end = run.start() - removed + _MAX_BLANKS
        removed += run.end() - run.start() - _MAX_BLANKS
        removals.append((end, removed))

    def original(position: int) -> int:
        return position + max((count for end, count in removals if end <= position), default=0)

    return [Span(original(span.start), original(span.end)) for span in spans]
