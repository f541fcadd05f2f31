"""Token counts of a request without encoding it: a lower bound, and an estimate.

Both take about a millisecond for millions of characters, so a request that is over a limit
can be refused before the work of encoding it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rankd.prompts.chunking import ChunkingDefaults
from rankd.prompts.text_encoders import TextEncoder
from rankd.types import RankRequest

# Characters per token of the estimate, for ASCII and for other texts. Words have four to six;
# an estimate that is too low only costs the time to encode a request that is then refused.
_CHARACTERS_PER_TOKEN, _CHARACTERS_PER_TOKEN_BEYOND_ASCII = 6, 4

# Documents are compared by this many characters; comparing all of them would take too long.
_COMPARED_CHARACTERS = 64


class TokenEstimator:
    """Counts the tokens of a request's different pairs, template included.

    Args:
        encoder: gives lower bounds for texts.
        defaults: decide, with the request, how documents are truncated or split.
        template_tokens: tokens of the template, without query and instruction.
        max_tokens: maximum length of a prompt.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        defaults: ChunkingDefaults,
        *,
        template_tokens: int,
        max_tokens: int,
    ) -> None:
        self._encoder = encoder
        self._defaults = defaults
        self._template_tokens = template_tokens
        self._max_tokens = max_tokens

    def estimated_tokens(self, requests: Sequence[RankRequest]) -> int:
        """An estimate for texts of words; not a bound for other texts."""
        return sum(map(self._estimated, requests))

    def min_tokens(self, requests: Sequence[RankRequest]) -> int:
        """A lower bound for any text."""
        return sum(map(self._min, requests))

    def _estimated(self, request: RankRequest) -> int:
        longest = min(self._max_tokens, request.max_prompt_tokens or self._max_tokens)
        rule = self._defaults.rule(request, longest)
        # Equal documents count once.
        different = {(len(text), text[:_COMPARED_CHARACTERS]): text for text in request.documents}
        total = 0
        for text in different.values():
            tokens = _estimated_length(text)
            count = rule.chunk_count(tokens)
            prompts = count * self._template_tokens + rule.total_tokens(tokens)
            total += min(prompts, count * longest)
        return total

    def _min(self, request: RankRequest) -> int:
        # How much room a shorter prompt leaves for documents depends on the query's length.
        room = self._max_tokens if request.max_prompt_tokens is None else 1
        rule = self._defaults.rule(request, room)
        limit = min(rule.max_whole_tokens, rule.chunk_tokens)
        # Documents whose compared parts are equal may become the same pair: only the longest
        # of them counts.
        longest: dict[str, int] = {}
        for document in request.documents:
            part = _compared_part(document, limit, keeps_start=rule.keeps_start)
            longest[part] = max(longest.get(part, 0), self._encoder.min_tokens(document))
        return sum(
            min(self._template_tokens + min(tokens, limit), self._max_tokens)
            for tokens in longest.values()
        )


def _estimated_length(text: str) -> int:
    return len(text) // (
        _CHARACTERS_PER_TOKEN if text.isascii() else _CHARACTERS_PER_TOKEN_BEYOND_ASCII
    )


def _compared_part(document: str, limit: int, *, keeps_start: bool) -> str:
    """A few characters at the end of the document that is read, in normalized spelling.

    They are fewer than `limit` tokens hold, so documents that differ in them differ in what
    is read.
    """
    size = min(limit // 8, _COMPARED_CHARACTERS)
    raw_size = 4 * size + 4  # Characters that normalization may compose to `size`.
    start = 0 if keeps_start else max(len(document) - raw_size, 0)
    part = document[start : start + raw_size].lower()
    if not part.isascii():
        part = unicodedata.normalize("NFC", part)
    return part[:size] if keeps_start else part[len(part) - min(size, len(part)) :]
