"""An ask becomes prompts: the head once, the documents in one batch, the cut in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import orjson

from rankd.errors import BadModel, InvalidRequest
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import qwen3
from rankd.prompts.chunking import ChunkingRule, refuse_large_overlap, refuse_many_chunks
from rankd.prompts.estimate import START_CHARACTERS, estimate_tokens, start_of
from rankd.prompts.offsets import Span
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import AnswerTokenIds, Prompt, RankRequest, TruncationPolicy

# Maximum tokens of an instruction that a request or a preset brings; more is an error.
MAX_INSTRUCTION_TOKENS = 512

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


# A letter, and after it what ends a word in every byte-pair encoding.
_WORD_END = re.compile(r"[^\W\d_](?=[ \n.,，。、])")


# Characters in which such a place is looked for.
_NEAR = 4_096


@dataclass(frozen=True, slots=True)
class EncodedRequest:
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
    chunks: tuple[int, ...]
    document_tokens: tuple[int, ...]
    kept_tokens: tuple[int, ...]
    longer: tuple[bool, ...]
    spans: tuple[Span, ...] | None = None
    query_tokens: int = 0

    def span(self, prompt: int) -> Span | None:
        """Where one prompt's piece stands, if that was asked for."""
        return self.spans[prompt] if self.spans else None


@dataclass(frozen=True, slots=True)
class _EncodedDocument:
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
        fit: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It cannot change.
        chunk_tokens: int = 512,
        chunk_overlap: int = 64,
        executor: Executor | None = None,
    ) -> None:
        self.fit = fit
        self._chunk = chunk_tokens, chunk_overlap
        self.answers = AnswerTokenIds(tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
        self.max_tokens = max_tokens
        self._plain = tokenizer.plain
        self._prefix = tuple(tokenizer.encode_template(qwen3.PREFIX))
        self._suffix = tuple(tokenizer.encode_template(qwen3.SUFFIX))
        self._instruction = instruction
        self._max_instruction_tokens = max_instruction_tokens
        self._executor = executor

    async def encode(self, requests: Sequence[RankRequest]) -> list[EncodedRequest]:
        """Encode every ask off the event loop; see `encode_blocking`."""
        if sum(map(_characters, requests)) < _SMALL:
            return [self.encode_blocking(request) for request in requests]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: [self.encode_blocking(request) for request in requests]
        )

    def min_tokens(self, requests: Sequence[RankRequest]) -> int:
        """Tokens that the different pairs of a request have at least.

        By counting characters, in a moment: what is refused for so many need not be
        encoded.
        """
        return sum(map(self._fewest, requests))

    def estimated_tokens(self, requests: Sequence[RankRequest]) -> int:
        """As `fewest_tokens`, of texts of words: much closer, but no bound for others."""
        return sum(map(self._likely, requests))

    def _likely(self, request: RankRequest) -> int:
        rule = self._rule(request, self.max_tokens)
        template = len(self._prefix) + len(self._suffix)
        # Equal ones count once; to compare millions of characters would take too long.
        different = {(len(text), text[:START_CHARACTERS]): text for text in request.documents}
        guesses = [estimate_tokens(text) for text in different.values()]
        pieces = [(rule.count(tokens), rule.total(tokens)) for tokens in guesses]
        return sum(
            min(count * template + total, count * self.max_tokens) for count, total in pieces
        )

    def _fewest(self, request: RankRequest) -> int:
        rule = self._rule(request, self.max_tokens)
        limit = min(rule.fits, rule.limit)
        template = len(self._prefix) + len(self._suffix)
        # Documents that are alike where they are read may become the same pair.
        longest: dict[str, int] = {}
        for document in request.documents:
            seen = start_of(document, limit, at_start=rule.at_start)
            longest[seen] = max(longest.get(seen, 0), self._plain.min_tokens(document))
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
        texts = [qwen3.PREFIX, qwen3.prefix_text(self._instruction, "{query}")]
        texts += [qwen3.suffix_text("{document}"), qwen3.SUFFIX]
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

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Each id as text."""
        return self._plain.decode(ids)

    def encode_blocking(self, request: RankRequest) -> EncodedRequest:
        """Make the prompts of one ask; only documents are ever cut.

        Raises:
            InvalidRequest: query and instruction alone leave no room for a document, the
                query takes more than half of it, or a document does not fit and must
                not be cut.
            TooLarge: the documents make too many chunks.
        """
        exact = _characters(request) <= _EXACT
        head = self._head(request, exact)
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
            self._refuse_long_query(request.query)
        return self._fitted(head, self._rule(request, room), request, exact)

    def _rule(self, request: RankRequest, room: int) -> ChunkingRule:
        """What an ask says of documents that do not fit, and where it says nothing, the server."""
        fits = min(request.max_document_tokens or room, room)
        truncation = request.truncation or self.fit.truncation
        # Who only says how many chunks means Cohere's, which are as long as the model reads.
        counted = request.truncation is None and request.max_chunks is not None
        limit, overlap = fits, request.overlap or 0
        if truncation == "chunk" and request.max_document_tokens is None:
            tokens, shared = self._chunk
            limit = min(tokens, room)
            overlap = min(shared, limit // 2) if request.overlap is None else request.overlap
        return ChunkingRule(
            fits=fits,
            limit=limit,
            longest=fits if request.max_chunks else limit,
            most=(request.max_chunks or sys.maxsize) if counted or truncation == "chunk" else 1,
            overlap=overlap,
            at_start=(request.side or self.fit.side) != "left",
            refuses=truncation == "refuse" and not counted,
        )

    def _head(self, request: RankRequest, exact: bool) -> tuple[int, ...]:
        if request.instruction is not None:
            self._refuse_long_instruction(request.instruction, exact)
        instruction = self._instruction if request.instruction is None else request.instruction
        question = qwen3.prefix_text(instruction, request.query)
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

    def _bodies(
        self, request: RankRequest, rule: ChunkingRule, exact: bool
    ) -> list[_EncodedDocument]:
        texts = [qwen3.suffix_text(document) for document in request.documents]
        if exact:
            encoded = self._plain.encode(texts)
            return [_EncodedDocument(ids, text) for ids, text in zip(encoded, texts, strict=True)]
        return [self._body(text, rule.readable, at_start=rule.at_start) for text in texts]

    def _body(self, text: str, readable: int | None, *, at_start: bool = True) -> _EncodedDocument:
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
                    return _EncodedDocument(ids[:-_MARGIN], part, longer=True)
                skipped = len(text) - len(part)
                return _EncodedDocument(ids[_MARGIN:], part, skipped, ids[:_MARGIN], longer=True)
            size *= 4
        [ids] = self._plain.encode([text])
        return _EncodedDocument(ids, text)

    def _fitted(
        self, head: tuple[int, ...], rule: ChunkingRule, request: RankRequest, exact: bool
    ) -> EncodedRequest:
        bodies = self._bodies(request, rule, exact)
        if rule.refuses:
            _refuse_long(bodies, rule.fits)
        counts = [rule.count(len(body.ids)) for body in bodies]
        refuse_many_chunks(sum(counts))
        cut = [rule.pieces(len(body.ids)) for body in bodies]
        if rule.overlap:
            refuse_large_overlap(cut)
        return EncodedRequest(
            prompts=tuple(
                Prompt(head, (*body.ids[start:end], *self._suffix))
                for body, pieces in zip(bodies, cut, strict=True)
                for start, end in pieces
            ),
            chunks=tuple(counts),
            document_tokens=tuple(len(body.ids) for body in bodies),
            kept_tokens=tuple(pieces[-1].end - pieces[0].start for pieces in cut),
            longer=tuple(body.longer for body in bodies),
            query_tokens=len(self._body(request.query, _MARGIN).ids),
            spans=self._spans(bodies, cut) if request.details else None,
        )

    def _spans(
        self, bodies: Sequence[_EncodedDocument], cut: Sequence[Sequence[Span]]
    ) -> tuple[Span, ...]:
        """Where pieces stand in their documents, in characters."""
        lead = len(qwen3.suffix_text(""))
        spans = []
        for body, pieces in zip(bodies, cut, strict=True):
            before = len(body.before)
            parts = [Span(before + start, before + end) for start, end in pieces]
            places = self._plain.places(body.text, [*body.before, *body.ids], parts)
            moved = body.skipped - lead
            spans += [Span(max(start + moved, 0), max(end + moved, 0)) for start, end in places]
        return tuple(spans)


def _part(text: str, size: int, *, at_start: bool) -> str:
    """About `size` characters of one end of a text, cut between two words where there are any."""
    cut = size if at_start else len(text) - size
    near = text[max(cut - _NEAR, 0) : cut + 1]
    ends = [match.end() for match in _WORD_END.finditer(near)]
    if ends:
        cut = max(cut - _NEAR, 0) + ends[-1]
    return text[:cut] if at_start else text[cut:]


def _count(body: _EncodedDocument) -> str:
    return f"more than {len(body.ids):,}" if body.longer else f"{len(body.ids):,}"


def _refuse_long(bodies: Sequence[_EncodedDocument], limit: int) -> None:
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


def _characters(request: RankRequest) -> int:
    return len(request.query) + sum(map(len, request.documents)) + len(request.instruction or "")


def open_encoder(
    checkpoint: Checkpoint,
    *,
    max_tokens: int,
    instruction: str,
    max_instruction_tokens: int,
    fit: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It cannot change.
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
