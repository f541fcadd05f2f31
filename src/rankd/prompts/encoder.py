"""An ask becomes prompts: the head once, the documents in one batch, the cut in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import orjson

from rankd.checkpoint import Checkpoint
from rankd.errors import BadModel, InvalidRequest, TooLarge
from rankd.prompts import qwen3
from rankd.prompts.places import Place
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import Answers, Ask, Fit, Prompt

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

# Chunks of the documents of one request; Cohere's own limit.
_MOST_PIECES = 10_000

# Tokens of all of them, which overlap may multiply: they take 16 bytes each for a moment.
_MOST_PIECE_TOKENS = 16_000_000


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
        spans: where each prompt's piece stands in its document, when that was asked for.
        query_tokens: length of the query by itself; of a very long one a thousand or more.
    """

    prompts: tuple[Prompt, ...]
    pieces: tuple[int, ...]
    document_tokens: tuple[int, ...]
    kept_tokens: tuple[int, ...]
    longer: tuple[bool, ...]
    spans: tuple[Place, ...] | None = None
    query_tokens: int = 0

    def span(self, prompt: int) -> Place | None:
        """Where one prompt's piece stands, if that was asked for."""
        return self.spans[prompt] if self.spans else None


@dataclass(frozen=True, slots=True)
class _Body:
    """A text's tokens: all of them, or those at one end.

    Attributes:
        text: what was encoded: all of it, or one end.
        skipped: characters before that.
        before: tokens of it that come before `ids`.
        longer: the text has more.
    """

    ids: Sequence[int]
    text: str
    skipped: int = 0
    before: Sequence[int] = ()
    longer: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the documents of one ask are made to fit.

    Attributes:
        fits: tokens of a document that is read as one piece.
        limit: tokens of one piece of another.
        longest: of one piece, where more of them than `most` would be needed.
        most: pieces of one document.
        overlap: tokens that two neighbouring pieces share.
        at_start: whether the start of a document is what is always read.
        refuses: documents that do not fit.
    """

    fits: int
    limit: int
    longest: int
    most: int
    overlap: int
    at_start: bool
    refuses: bool

    @property
    def readable(self) -> int:
        """Tokens of one document that can be read; more than its chunks may have."""
        step = max(self.longest - self.overlap, 1)
        return max(self.fits, self.longest + min(self.most - 1, _MOST_PIECES) * step)

    def count(self, tokens: int) -> int:
        """Pieces of a document; none begins where the one before already reached the end."""
        if tokens <= self.fits:
            return 1
        length, step = self._lengths(tokens)
        return min(self.most, 1 - (length - tokens) // step)

    def total(self, tokens: int) -> int:
        """Tokens of all its pieces; those that two share count in both."""
        if tokens <= self.fits:
            return tokens
        length, step = self._lengths(tokens)
        count = self.count(tokens)
        return min(count * length, tokens + (count - 1) * (length - step))

    def pieces(self, tokens: int) -> list[Place]:
        """What the model reads of a document, in its order."""
        if tokens <= self.fits:
            return [Place(0, tokens)]
        length, step = self._lengths(tokens)
        starts = (number * step for number in range(self.count(tokens)))
        pieces = [Place(start, min(start + length, tokens)) for start in starts]
        if self.at_start:
            return pieces
        return [Place(tokens - end, tokens - start) for start, end in reversed(pieces)]

    def _lengths(self, tokens: int) -> tuple[int, int]:
        """Of a piece of a document, and from its beginning to that of the next."""
        needed = self.overlap - (self.overlap - tokens) // self.most
        length = max(self.limit, min(needed, self.longest))
        return length, max(length - self.overlap, 1)


class PromptEncoder:
    """Puts pairs into Qwen3's template, as token ids.

    Attributes:
        answers: ids of "yes" and "no" in this checkpoint's vocabulary.
        max_tokens: the longest prompt it makes.
        fit: what becomes of documents that do not fit, where an ask does not say; of it
            only truncation and side.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        instruction: str,
        max_instruction_tokens: int,
        fit: Fit = Fit(),  # noqa: B008  # It cannot change.
        chunk_tokens: int = 512,
        chunk_overlap: int = 64,
        executor: Executor | None = None,
    ) -> None:
        self.fit = fit
        self._chunk = chunk_tokens, chunk_overlap
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
        rule = self._rule(ask, self.max_tokens)
        template = len(self._prefix) + len(self._suffix)
        # Equal ones count once; to compare millions of characters would take too long.
        different = {(len(text), text[:_GLANCE]): text for text in ask.documents}
        guesses = [_guess(text) for text in different.values()]
        pieces = [(rule.count(tokens), rule.total(tokens)) for tokens in guesses]
        return sum(
            min(count * template + total, count * self.max_tokens) for count, total in pieces
        )

    def _fewest(self, ask: Ask) -> int:
        rule = self._rule(ask, self.max_tokens)
        limit = min(rule.fits, rule.limit)
        template = len(self._prefix) + len(self._suffix)
        # Documents that are alike where they are read may become the same pair.
        longest: dict[str, int] = {}
        for document in ask.documents:
            seen = _glance(document, limit, at_start=rule.at_start)
            longest[seen] = max(longest.get(seen, 0), self._plain.fewest(document))
        return sum(
            min(template + min(tokens, limit), self.max_tokens) for tokens in longest.values()
        )

    @property
    def prefix(self) -> tuple[int, ...]:
        """The template's ids before the instruction."""
        return self._prefix

    @property
    def suffix(self) -> tuple[int, ...]:
        """Those behind the document."""
        return self._suffix

    @cached_property
    def template(self) -> str:
        """Twelve hex digits that change with the prompt around a query and a document: its
        text and its token ids, the instruction of those who send none, the two answers."""
        texts = [qwen3.PREFIX, qwen3.question(self._instruction, "{query}")]
        texts += [qwen3.answer("{document}"), qwen3.SUFFIX]
        question, answer = self._plain.encode(texts[1:3])
        ids = [self._prefix, question, answer, self._suffix, list(self.answers)]
        return hashlib.sha256(orjson.dumps([texts, ids])).hexdigest()[:12]

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
            InvalidRequest: query and instruction alone leave no room for a document, the
                query takes more than half of it, or a document does not fit and must
                not be cut.
            TooLarge: the documents make too many chunks.
        """
        exact = _characters(ask) <= _EXACT
        head = self._head(ask, exact)
        room = self.max_tokens - len(head) - len(self._suffix)
        if room < 1:
            raise InvalidRequest(
                f"query and instruction take {len(head) + len(self._suffix):,} tokens "
                f"{'' if exact else 'or more '}with the template; "
                f"the limit is {self.max_tokens:,} with the document, and "
                f"{self.max_tokens // 2:,} for the query alone",
                param="query",
            )
        if len(head) > self.max_tokens // 2:
            self._refuse_long_query(ask.query)
        return self._fitted(head, self._rule(ask, room), ask, exact)

    def _rule(self, ask: Ask, room: int) -> _Rule:
        """What an ask says of documents that do not fit, and where it says nothing, the server."""
        fits = min(ask.max_document_tokens or room, room)
        truncation = ask.truncation or self.fit.truncation
        # Who only says how many chunks means Cohere's, which are as long as the model reads.
        counted = ask.truncation is None and ask.max_chunks is not None
        limit, overlap = fits, ask.overlap or 0
        if truncation == "chunk" and ask.max_document_tokens is None:
            tokens, shared = self._chunk
            limit = min(tokens, room)
            overlap = min(shared, limit // 2) if ask.overlap is None else ask.overlap
        return _Rule(
            fits=fits,
            limit=limit,
            longest=fits if ask.max_chunks else limit,
            most=(ask.max_chunks or sys.maxsize) if counted or truncation == "chunk" else 1,
            overlap=overlap,
            at_start=(ask.side or self.fit.side) != "left",
            refuses=truncation == "refuse" and not counted,
        )

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

    def _refuse_long_query(self, query: str) -> None:
        limit = self.max_tokens // 2
        [ids] = self._plain.encode([query])
        if len(ids) > limit:
            raise InvalidRequest(
                f"the query takes {len(ids):,} tokens; the limit is {limit:,}, half of the "
                f"{self.max_tokens:,} that the model reads at a time",
                param="query",
            )

    def _bodies(self, ask: Ask, rule: _Rule, exact: bool) -> list[_Body]:
        texts = [qwen3.answer(document) for document in ask.documents]
        if exact:
            encoded = self._plain.encode(texts)
            return [_Body(ids, text) for ids, text in zip(encoded, texts, strict=True)]
        return [self._body(text, rule.readable, at_start=rule.at_start) for text in texts]

    def _body(self, text: str, readable: int | None, *, at_start: bool = True) -> _Body:
        """A text's tokens; of a very long one only more than `readable`, at the end that is read.

        They are the tokens of the whole: it is cut between two words, and what is near the
        cut is dropped in any case. (Only the end of a text without any words, such as a
        million times one letter, may be divided otherwise than in the whole.)
        """
        size = _CHARACTERS * ((readable or 0) + _MARGIN)
        while readable is not None and size < len(text):
            part = _part(text, size, at_start=at_start)
            [ids] = self._plain.encode([part])
            if len(ids) > readable + _MARGIN:
                if at_start:
                    return _Body(ids[:-_MARGIN], part, longer=True)
                skipped = len(text) - len(part)
                return _Body(ids[_MARGIN:], part, skipped, ids[:_MARGIN], longer=True)
            size *= 4
        [ids] = self._plain.encode([text])
        return _Body(ids, text)

    def _fitted(self, head: tuple[int, ...], rule: _Rule, ask: Ask, exact: bool) -> Encoded:
        bodies = self._bodies(ask, rule, exact)
        if rule.refuses:
            _refuse_long(bodies, rule.fits)
        counts = [rule.count(len(body.ids)) for body in bodies]
        refuse_many_pieces(sum(counts))
        cut = [rule.pieces(len(body.ids)) for body in bodies]
        if rule.overlap:
            _refuse_much_overlap(cut)
        return Encoded(
            prompts=tuple(
                Prompt(head, (*body.ids[start:end], *self._suffix))
                for body, pieces in zip(bodies, cut, strict=True)
                for start, end in pieces
            ),
            pieces=tuple(counts),
            document_tokens=tuple(len(body.ids) for body in bodies),
            kept_tokens=tuple(pieces[-1].end - pieces[0].start for pieces in cut),
            longer=tuple(body.longer for body in bodies),
            query_tokens=len(self._body(ask.query, _MARGIN).ids),
            spans=self._spans(bodies, cut) if ask.details else None,
        )

    def _spans(self, bodies: Sequence[_Body], cut: Sequence[Sequence[Place]]) -> tuple[Place, ...]:
        """Where pieces stand in their documents, in characters."""
        lead = len(qwen3.answer(""))
        spans = []
        for body, pieces in zip(bodies, cut, strict=True):
            before = len(body.before)
            parts = [Place(before + start, before + end) for start, end in pieces]
            places = self._plain.places(body.text, [*body.before, *body.ids], parts)
            moved = body.skipped - lead
            spans += [Place(max(start + moved, 0), max(end + moved, 0)) for start, end in places]
        return tuple(spans)


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


def refuse_many_pieces(count: int) -> None:
    """Raises `TooLarge` when the documents of one request make too many pieces."""
    if count > _MOST_PIECES:
        raise TooLarge(
            f"the documents make {count:,} chunks; the limit is {_MOST_PIECES:,}: "
            "lower max_chunks_per_doc",
            param="max_chunks_per_doc",
        )


def _refuse_much_overlap(cut: Sequence[Sequence[Place]]) -> None:
    tokens = sum(end - start for pieces in cut if len(pieces) > 1 for start, end in pieces)
    if tokens > _MOST_PIECE_TOKENS:
        raise TooLarge(
            f"the chunks of the documents hold {tokens:,} tokens; the limit is "
            f"{_MOST_PIECE_TOKENS:,}: lower overlap_tokens",
            param="overlap_tokens",
        )


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
    fit: Fit = Fit(),  # noqa: B008  # It cannot change.
    chunk_tokens: int = 512,
    chunk_overlap: int = 64,
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
        fit=fit,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        executor=executor,
    )
