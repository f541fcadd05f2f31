"""A prompt as fixed text with slots, and its token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from rankd.prompts.text_encoders import TextEncoder
from rankd.prompts.tokenizer import Tokenizer

# Slots in the text of a template. Fixed text never holds a NUL.
INSTRUCTION, QUERY, DOCUMENT = "\0instruction\0", "\0query\0", "\0document\0"
_SLOT = re.compile(f"({INSTRUCTION}|{QUERY}|{DOCUMENT})")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The text around instruction, query and document.

    The prompt is encoded in segments whose token ids, joined, are those of the whole string. A
    segment without a slot may hold control tokens; one with slots is plain text.

    Attributes:
        name: `qwen3`, or the file of the chat template.
        before: segments before the document. Documents of one request share them.
        lead: fixed text that is encoded with the document, before it.
        trail: fixed text that is encoded with the document, after it.
        after: segments after the document.
        strips: slots whose text loses white space at both ends.
    """

    name: str
    before: tuple[str, ...]
    lead: str
    after: tuple[str, ...]
    trail: str = ""
    strips: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """The whole prompt, with slots."""
        return "".join((*self.before, self.lead, DOCUMENT, self.trail, *self.after))

    def filled(self, instruction: str, query: str, document: str) -> str:
        """The whole prompt as text."""
        return "".join(fill(pieces(self.text), instruction, query, document))


def pieces(text: str) -> tuple[str, ...]:
    """The fixed texts and slots of a template's text, in order; none is empty."""
    return tuple(piece for piece in _SLOT.split(text) if piece)


def fill(parts: Sequence[str], instruction: str, query: str, document: str) -> list[str]:
    """The pieces with texts in place of their slots."""
    texts = {INSTRUCTION: instruction, QUERY: query, DOCUMENT: document}
    return [texts.get(part, part) for part in parts]


class EncodedTemplate:
    """A template with the token ids of its fixed segments.

    Attributes:
        template: what was encoded.
        runs: the pieces of each segment with slots, in order; encoded for each request.
        lead, trail: as of the template.
        opening: token ids of `lead`, for a chunk that does not begin with it; empty if `lead` is
            one space.
        closing: token ids of `trail`, for a chunk that does not end with it.
        prefix, suffix: token ids before the first and after the last slot that is encoded apart.
        fixed_tokens: number of token ids in fixed segments.
    """

    def __init__(self, template: PromptTemplate, tokenizer: Tokenizer) -> None:
        segments = [*template.before, *template.after]
        parts = [pieces(segment) for segment in segments]
        slots = {INSTRUCTION, QUERY}
        self.template = template
        self.runs = tuple(run for run in parts if slots.intersection(run))
        self.lead, self.trail = template.lead, template.trail
        opening = "" if template.lead == " " else template.lead
        self.opening, self.closing = map(tuple, tokenizer.plain.encode([opening, template.trail]))
        ids = [
            None if slots.intersection(run) else tuple(tokenizer.encode_template(segment))
            for run, segment in zip(parts, segments, strict=True)
        ]
        self._before, self._after = ids[: len(template.before)], ids[len(template.before) :]
        self._fixed_after = None if None in self._after else _joined(self._after)
        self.prefix = _until_slot(self._before)
        self.suffix = tuple(
            reversed(_until_slot([part and part[::-1] for part in self._after[::-1]]))
        )
        self.fixed_tokens = sum(len(part) for part in ids if part is not None)

    def around(self, encoded: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids before and after a document, from those of the filled `runs`."""
        rest = iter(encoded)
        before = _joined([next(rest) if part is None else part for part in self._before])
        if self._fixed_after is not None:
            return before, self._fixed_after
        return before, _joined([next(rest) if part is None else part for part in self._after])

    def encoded(
        self, encoder: TextEncoder, instruction: str, query: str, document: str
    ) -> list[int]:
        """The token ids of one whole prompt; white space is not stripped."""
        texts = ["".join(fill(run, instruction, query, document)) for run in self.runs]
        *runs, read = encoder.encode([*texts, f"{self.lead}{document}{self.trail}"])
        before, after = self.around(runs)
        return [*before, *read, *after]


def _joined(parts: Sequence[Sequence[int] | None]) -> tuple[int, ...]:
    return tuple(chain.from_iterable(cast(Sequence[Sequence[int]], parts)))


def _until_slot(parts: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
    end = parts.index(None) if None in parts else len(parts)
    return _joined(parts[:end])
