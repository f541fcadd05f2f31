"""Splits a prompt's text into segments that can be encoded apart.

Tokenizers join characters, so the tokens of two texts are not always those of both together. Where
a text can be split is found, and proven, by encoding known texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from rankd.errors import BadModel
from rankd.prompts.probes import TEXTS
from rankd.prompts.template import (
    DOCUMENT,
    INSTRUCTION,
    QUERY,
    EncodedTemplate,
    PromptTemplate,
    fill,
    pieces,
)
from rankd.prompts.tokenizer import Tokenizer

# Texts of the slots that are not varied.
_USUAL = ("Is it an answer?", "what is it", "It is this.")


def segmented(name: str, text: str, tokenizer: Tokenizer) -> PromptTemplate:
    """The template with a prompt's text.

    Args:
        name: of the file that it comes from.
        text: fixed text with slots; control tokens in it are control tokens.

    Raises:
        BadModel: between the document and its neighbours there is no place where the tokens of
            both sides are those of the whole.
    """
    before, after = text.split(DOCUMENT)
    *earlier, left = _runs(before, tokenizer, at_end=True)
    right, *later = _runs(after, tokenizer, at_end=False)
    lead_at = _split_before(name, left, tokenizer)
    lead = left[lead_at:]
    trail_at = _split_after(name, lead, right, tokenizer)
    return PromptTemplate(
        name=name,
        before=_merged([*earlier, left[:lead_at]]),
        lead=lead,
        after=_merged([right[trail_at:], *later]),
        trail=right[:trail_at],
    )


def _runs(text: str, tokenizer: Tokenizer, *, at_end: bool) -> list[str]:
    """Control tokens and the texts between them; the one at the document may be empty."""
    parts = tokenizer.split(text)
    edge = parts[-1 if at_end else 0] if parts else None
    if edge is None or edge in tokenizer.control:
        parts.insert(len(parts) if at_end else 0, "")
    return parts


def _merged(runs: Iterable[str]) -> tuple[str, ...]:
    """Neighbours without slots as one segment; empty ones are left out."""
    segments: list[str] = []
    for run in filter(None, runs):
        if segments and "\0" not in segments[-1] + run:
            segments[-1] += run
        else:
            segments.append(run)
    return tuple(segments)


def _split_before(name: str, run: str, tokenizer: Tokenizer) -> int:
    """Where the text before the document is split, as near to the document as possible."""
    fixed = run.rsplit("\0", 1)[-1]
    first = len(run) - len(fixed)
    for position in range(len(run), first, -1):
        sides = [
            (_filled(run[:position], query), run[position:] + document)
            for query, document in _pairs()
        ]
        if _joins(sides, tokenizer):
            return position
    if first == 0:
        return 0  # A control token, or nothing, is before it.
    raise BadModel(_unsplittable(name, "before"))


def _split_after(name: str, lead: str, run: str, tokenizer: Tokenizer) -> int:
    """Where the text after the document is split, as near to the document as possible."""
    fixed = run.split("\0", 1)[0]
    for position in range(len(fixed)):
        sides = [
            (lead + document + run[:position], _filled(run[position:], query))
            for query, document in _pairs()
        ]
        if _joins(sides, tokenizer):
            return position
    if fixed == run:
        return len(run)
    raise BadModel(_unsplittable(name, "after"))


def _unsplittable(name: str, side: str) -> str:
    return (
        f"{name}: between the query and the document there is no fixed text {side} the document "
        "where tokens never join; put a line with a word between them"
    )


def _pairs() -> list[tuple[str, str]]:
    """Queries and documents, each varied beside a usual one."""
    _, query, document = _USUAL
    return [(query, text) for text in TEXTS] + [(text, document) for text in TEXTS]


def _filled(text: str, query: str) -> str:
    return "".join(fill(pieces(text), _USUAL[0], query, ""))


def _joins(sides: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> bool:
    """Whether the tokens of both sides are those of the whole, for every pair of sides."""
    texts = [text for left, right in sides for text in (left, right, left + right)]
    ids = tokenizer.plain.encode(texts)
    return all(left + right == whole for left, right, whole in zip(*[iter(ids)] * 3, strict=True))


def prove(template: PromptTemplate, tokenizer: Tokenizer, file: Path) -> None:
    """Compare the token ids of segments with those of the whole text.

    Args:
        file: `tokenizer.json`, which the whole text is encoded with, as transformers does.

    Raises:
        BadModel: they differ for some text.
    """
    reference = tokenizers.Tokenizer.from_file(str(file))
    reference.no_truncation()
    reference.no_padding()
    encoded = EncodedTemplate(template, tokenizer)
    for slot in (INSTRUCTION, QUERY, DOCUMENT):
        for text in TEXTS:
            texts = [
                text if known == slot else usual
                for known, usual in zip((INSTRUCTION, QUERY, DOCUMENT), _USUAL, strict=True)
            ]
            whole = reference.encode(template.filled(*texts), add_special_tokens=False).ids
            if encoded.encoded(tokenizer.plain, *texts) != whole:
                raise BadModel(
                    f"{template.name}: its tokens cannot be built from parts (for the text "
                    f"{text[:40]!r}), because the tokenizer treats control tokens in an unusual way"
                )
