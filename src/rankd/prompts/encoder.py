"""An ask becomes prompts: the head once, the documents in one batch, the cut in the middle."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import orjson

from rankd.checkpoint import Checkpoint
from rankd.errors import BadModel, InvalidRequest
from rankd.prompts import qwen3
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import Answers, Ask, Prompt

# Characters below which a request is encoded where it stands: that takes less than a
# tenth of a millisecond, and a thread's round trip more.
_SMALL = 2_000

# Characters up to which a request is encoded whole, so that every count is exact: that
# takes a fifth of a second. Beyond, of each text only what can be read is encoded.
_EXACT = 1_000_000

# Characters taken for each token that can be read. Words need four to six; texts that need
# more are taken in larger and larger parts.
_CHARACTERS = 16

# Tokens that are encoded beyond those that can be read, and then dropped: where a text is
# cut in the middle of a word, its last tokens are others than those of the whole.
_MARGIN = 1_000

# Characters of a token, when a request's price is guessed: words have four to six. Where the
# guess is too low, only time is lost.
_GUESSED, _GUESSED_BEYOND_ASCII = 6, 4

# Characters by which documents are told apart before they are encoded.
_GLANCE = 64

# A letter, and after it what ends a word in every byte-pair encoding.
_WORD_END = re.compile(r"[^\W\d_](?=[ \n.,，。、])")

# Characters in which such a place is looked for.
_NEAR = 4_096


@dataclass(frozen=True, slots=True)
class Encoded:
    """The prompts of one ask.

    Attributes:
        prompts: one for each piece of each document, in order, all with the same head
            object. A document that fits is one piece.
        pieces: how many prompts each document has.
        document_tokens: length of each whole document, before any cut.
        kept_tokens: length of what is left of it in its prompts, each token once.
        longer: which documents have more than their `document_tokens`.
    """

    prompts: tuple[Prompt, ...]
    pieces: tuple[int, ...]
    document_tokens: tuple[int, ...]
    kept_tokens: tuple[int, ...]
    longer: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Body:
    """A text's tokens: all of them, or those at one end.

    Attributes:
        longer: the text has more.
    """

    ids: Sequence[int]
    longer: bool = False


class PromptEncoder:
    """Puts pairs into Qwen3's template, as token ids.

    Attributes:
        answers: ids of "yes" and "no" in this checkpoint's vocabulary.
        max_tokens: the longest prompt it makes; documents are cut to fit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        instruction: str,
        max_instruction_tokens: int,
        executor: Executor | None = None,
    ) -> None:
        self.answers = Answers(tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
        self.max_tokens = max_tokens
        self._plain = tokenizer.plain
        self._prefix = tuple(tokenizer.encode_template(qwen3.PREFIX))
        self._suffix = tuple(tokenizer.encode_template(qwen3.SUFFIX))
        self._instruction = instruction
        self._max_instruction_tokens = max_instruction_tokens
        self._executor = executor

    async def encode(self, asks: Sequence[Ask]) -> list[Encoded]:
        """Encode every ask off the event loop; see `encode_now`."""
        if sum(map(_characters, asks)) < _SMALL:
            return [self.encode_now(ask) for ask in asks]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: [self.encode_now(ask) for ask in asks]
        )

    def fewest_tokens(self, asks: Sequence[Ask]) -> int:
        """Tokens that the different pairs of a request have at least.

        By counting characters, in a moment: what is refused for so many need not be
        encoded.
        """
        return sum(map(self._fewest, asks))

    def likely_tokens(self, asks: Sequence[Ask]) -> int:
        """As `fewest_tokens`, of texts of words: much closer, but no bound for others."""
        return sum(map(self._likely, asks))

    def _likely(self, ask: Ask) -> int:
        limit = min(ask.max_document_tokens or self.max_tokens, self.max_tokens)
        template = len(self._prefix) + len(self._suffix)
        # Equal ones count once; to compare millions of characters would take too long.
        different = {(len(text), text[:_GLANCE]): text for text in ask.documents}
        return sum(
            min(template + min(_guess(text), limit), self.max_tokens) for text in different.values()
        )

    def _fewest(self, ask: Ask) -> int:
        limit = min(ask.max_document_tokens or self.max_tokens, self.max_tokens)
        template = len(self._prefix) + len(self._suffix)
        # Documents that are alike where they are read may become the same pair.
        longest: dict[str, int] = {}
        for document in ask.documents:
            seen = _glance(document, limit, at_start=ask.truncation != "start")
            longest[seen] = max(longest.get(seen, 0), self._plain.fewest(document))
        return sum(
            min(template + min(tokens, limit), self.max_tokens) for tokens in longest.values()
        )

    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text by itself; no string in it becomes a control token."""
        if len(text) < _SMALL:
            return self._plain.encode([text])[0]
        loop = asyncio.get_running_loop()
        [ids] = await loop.run_in_executor(self._executor, self._plain.encode, [text])
        return ids

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Each id as text."""
        return self._plain.spell(ids)

    def encode_now(self, ask: Ask) -> Encoded:
        """Make the prompts of one ask; only documents are ever cut.

        Raises:
            InvalidRequest: query and instruction alone leave no room for a document, or
                one does not fit and must not be cut.
        """
        exact = _characters(ask) <= _EXACT
        head = self._head(ask, exact)
        room = self.max_tokens - len(head) - len(self._suffix)
        if room < 1:
            raise InvalidRequest(
                f"query and instruction take {len(head) + len(self._suffix):,} tokens "
                f"{'' if exact else 'or more '}with the template; "
                f"the limit is {self.max_tokens:,} with the document",
                param="query",
            )
        limit = room if ask.max_document_tokens is None else min(room, ask.max_document_tokens)
        return self._fit(head, limit, ask, exact)

    def _head(self, ask: Ask, exact: bool) -> tuple[int, ...]:
        if ask.instruction is not None:
            self._refuse_long_instruction(ask.instruction, exact)
        instruction = self._instruction if ask.instruction is None else ask.instruction
        question = qwen3.question(instruction, ask.query)
        return (*self._prefix, *self._body(question, None if exact else self.max_tokens).ids)

    def _refuse_long_instruction(self, instruction: str, exact: bool) -> None:
        body = self._body(instruction, None if exact else self._max_instruction_tokens)
        if len(body.ids) > self._max_instruction_tokens:
            raise InvalidRequest(
                f"the instruction takes {_count(body)} tokens; "
                f"the limit is {self._max_instruction_tokens:,}",
                param="instruction",
            )

    def _bodies(self, ask: Ask, limit: int, exact: bool) -> list[_Body]:
        texts = [qwen3.answer(document) for document in ask.documents]
        if exact:
            return [_Body(ids) for ids in self._plain.encode(texts)]
        readable = limit + (ask.max_chunks - 1) * max(limit - ask.overlap, 1)
        return [self._body(text, readable, at_start=ask.truncation != "start") for text in texts]

    def _body(self, text: str, readable: int | None, *, at_start: bool = True) -> _Body:
        """A text's tokens; of a very long one only more than `readable`, at the end that is read.

        They are the tokens of the whole: it is cut between two words, and what is near the
        cut is dropped in any case. (Only the end of a text without any words, such as a
        million times one letter, may be divided otherwise than in the whole.)
        """
        size = _CHARACTERS * ((readable or 0) + _MARGIN)
        while readable is not None and size < len(text):
            [ids] = self._plain.encode([_part(text, size, at_start=at_start)])
            if len(ids) > readable + _MARGIN:
                return _Body(ids[:-_MARGIN] if at_start else ids[_MARGIN:], longer=True)
            size *= 4
        [ids] = self._plain.encode([text])
        return _Body(ids)

    def _fit(self, head: tuple[int, ...], limit: int, ask: Ask, exact: bool) -> Encoded:
        found = self._bodies(ask, limit, exact)
        if ask.truncation == "refuse":
            _refuse_long(found, limit)
        bodies = [body.ids for body in found]
        cut = [_pieces(body, limit, ask) for body in bodies]
        return Encoded(
            prompts=tuple(
                Prompt(head, (*piece, *self._suffix)) for pieces in cut for piece in pieces
            ),
            pieces=tuple(map(len, cut)),
            document_tokens=tuple(map(len, bodies)),
            kept_tokens=tuple(
                _covered(body, pieces, ask) for body, pieces in zip(bodies, cut, strict=True)
            ),
            longer=tuple(body.longer for body in found),
        )


def _guess(text: str) -> int:
    return len(text) // (_GUESSED if text.isascii() else _GUESSED_BEYOND_ASCII)


def _glance(document: str, limit: int, *, at_start: bool) -> str:
    """What tells one document from others, of the end that is read.

    Short enough that `limit` tokens hold more, and spelled as tokenizers spell it: two
    spellings of one text are one text.
    """
    size = min(limit // 8, _GLANCE)
    longest = 4 * size + 4  # Of characters that are composed to `size`.
    start = 0 if at_start else max(len(document) - longest, 0)
    part = document[start : start + longest].lower()
    if not part.isascii():
        part = unicodedata.normalize("NFC", part)
    return part[:size] if at_start else part[len(part) - min(size, len(part)) :]


def _part(text: str, size: int, *, at_start: bool) -> str:
    """About `size` characters of one end of a text, cut between two words where there are any."""
    cut = size if at_start else len(text) - size
    near = text[max(cut - _NEAR, 0) : cut + 1]
    ends = [match.end() for match in _WORD_END.finditer(near)]
    if ends:
        cut = max(cut - _NEAR, 0) + ends[-1]
    return text[:cut] if at_start else text[cut:]


def _count(body: _Body) -> str:
    return f"more than {len(body.ids):,}" if body.longer else f"{len(body.ids):,}"


def _pieces(body: Sequence[int], limit: int, ask: Ask) -> list[Sequence[int]]:
    """What the model reads of a document, in pieces of at most `limit` tokens."""
    if len(body) <= limit:
        return [body]
    if ask.truncation == "start":
        return [body[-limit:]]
    step = max(limit - ask.overlap, 1)
    # No piece begins where the one before already reached the end.
    starts = range(0, max(len(body) - limit, 0) + step, step)[: ask.max_chunks]
    return [body[start : start + limit] for start in starts]


def _covered(body: Sequence[int], pieces: Sequence[Sequence[int]], ask: Ask) -> int:
    if len(pieces) == 1:
        return len(pieces[0])
    step = max(len(pieces[0]) - ask.overlap, 1)
    return min(len(body), step * (len(pieces) - 1) + len(pieces[0]))


def _refuse_long(bodies: Sequence[_Body], limit: int) -> None:
    long = [
        f"documents[{place}] ({_count(body)})"
        for place, body in enumerate(bodies)
        if len(body.ids) > limit
    ]
    if long:
        shown = ", ".join(long[:10]) + (f" and {len(long) - 10} more" if len(long) > 10 else "")
        raise InvalidRequest(
            f"{len(long)} of {len(bodies)} documents exceed {limit:,} tokens and truncation is "
            f"off: {shown}",
            param="documents",
        )


def _characters(ask: Ask) -> int:
    return len(ask.query) + sum(map(len, ask.documents)) + len(ask.instruction or "")


def open_encoder(
    checkpoint: Checkpoint,
    *,
    max_tokens: int,
    instruction: str,
    max_instruction_tokens: int,
    executor: Executor | None = None,
) -> PromptEncoder:
    """The encoder of a checkpoint's own `tokenizer.json`.

    Raises:
        BadModel: the file cannot be read, or it is not a reranker's tokenizer.
    """
    file = checkpoint.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer(orjson.loads(file.read_bytes()))
    except BadModel:
        raise
    except Exception as problem:  # The library has one class for all that a file can lack.
        raise BadModel(f"{file} is not a usable tokenizer: {problem!r}") from None
    rows = checkpoint.config.get("vocab_size", tokenizer.size)
    if tokenizer.size > rows:
        # Otherwise a rare word in someone's document would bring the engine down.
        raise BadModel(f"{file} has {tokenizer.size:,} tokens; the model has rows for {rows:,}")
    return PromptEncoder(
        tokenizer,
        max_tokens=min(max_tokens, checkpoint.max_tokens),
        instruction=instruction,
        max_instruction_tokens=max_instruction_tokens,
        executor=executor,
    )
