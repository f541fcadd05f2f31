"""Encodes requests as prompts: the prefix once, all documents in one batch.

A prompt is prefix + suffix: template, instruction and query; then document and the end of the
template. Only documents are ever truncated.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import orjson

from rankd.errors import InvalidRequest
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import qwen3
from rankd.prompts.chunking import ChunkingDefaults, ChunkingRule
from rankd.prompts.estimate import TokenEstimator
from rankd.prompts.offsets import Span
from rankd.prompts.partial import MARGIN, EncodedText, encode_text
from rankd.prompts.tokenizer import Tokenizer, open_tokenizer
from rankd.types import AnswerTokenIds, Prompt, RankRequest, TruncationPolicy

# Maximum tokens of an instruction that a request or a preset brings; more is an error.
MAX_INSTRUCTION_TOKENS = 512

# A request with fewer characters is encoded on the event loop: that takes less than 0.1 ms,
# and handing it to a thread takes longer.
_MAX_INLINE_CHARACTERS = 2_000

# A request with up to this many characters is encoded whole, in about 0.2 s, so that its token
# counts are exact. Of texts in larger requests, only what can be read is encoded.
_MAX_EXACT_CHARACTERS = 1_000_000

# Documents named in the message about documents that do not fit.
_MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """The prompts of one request, and what they hold of its N documents.

    Attributes:
        prompts: one for each chunk of each document, in order; all share one prefix object.
            A document that fits is one chunk.
        chunks: N numbers of prompts.
        document_tokens: N lengths of whole documents, before any truncation.
        kept_tokens: N numbers of tokens that are in the prompts; shared ones count once.
        longer: N flags: the document has more tokens than `document_tokens`, which counts
            only what was encoded.
        spans: for each prompt, the characters of its chunk in the document; None unless
            `RankRequest.details` is set.
        query_tokens: length of the query alone; of a very long one, a lower bound above 1,000.
    """

    prompts: tuple[Prompt, ...]
    chunks: tuple[int, ...]
    document_tokens: tuple[int, ...]
    kept_tokens: tuple[int, ...]
    longer: tuple[bool, ...]
    spans: tuple[Span, ...] | None = None
    query_tokens: int = 0

    def span(self, prompt: int) -> Span | None:
        """The characters of one prompt's chunk in its document; None without `spans`."""
        return self.spans[prompt] if self.spans else None


class PromptEncoder:
    """Encodes query-document pairs in Qwen3's template.

    Attributes:
        answers: token ids of "yes" and "no" in this checkpoint's vocabulary.
        max_tokens: maximum length of a prompt, in tokens.
        truncation_policy: the server's policy for documents that do not fit; a request overrides
            it. Only its truncation and side are used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        instruction: str,
        max_instruction_tokens: int,
        truncation_policy: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It is immutable.
        chunk_tokens: int = 512,
        chunk_overlap: int = 64,
        executor: Executor | None = None,
    ) -> None:
        self.truncation_policy = truncation_policy
        self.answers = AnswerTokenIds(tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
        self.max_tokens = max_tokens
        self._plain = tokenizer.plain
        self._prefix = tuple(tokenizer.encode_template(qwen3.PREFIX))
        self._suffix = tuple(tokenizer.encode_template(qwen3.SUFFIX))
        self._instruction = instruction
        self._max_instruction_tokens = max_instruction_tokens
        self._executor = executor
        self._chunking = ChunkingDefaults(truncation_policy, chunk_tokens, chunk_overlap)
        self._estimator = TokenEstimator(
            self._plain,
            self._chunking,
            template_tokens=len(self._prefix) + len(self._suffix),
            max_tokens=max_tokens,
        )

    async def encode(self, requests: Sequence[RankRequest]) -> list[EncodedRequest]:
        """Encode requests, large ones in the executor; see `encode_blocking`."""
        if sum(map(_characters, requests)) < _MAX_INLINE_CHARACTERS:
            return [self.encode_blocking(request) for request in requests]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: [self.encode_blocking(request) for request in requests]
        )

    def min_tokens(self, requests: Sequence[RankRequest]) -> int:
        """Lower bound of the tokens of all different pairs, without encoding them."""
        return self._estimator.min_tokens(requests)

    def estimated_tokens(self, requests: Sequence[RankRequest]) -> int:
        """Estimate of the tokens of all different pairs; closer than `min_tokens`, no bound."""
        return self._estimator.estimated_tokens(requests)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Token ids of the template before the instruction."""
        return self._prefix

    @property
    def suffix(self) -> tuple[int, ...]:
        """Token ids of the template after the document."""
        return self._suffix

    @cached_property
    def template(self) -> str:
        """Twelve hex digits that identify the prompt around a query and a document.

        They change with the template's text and token ids, the default instruction, and the
        token ids of yes and no.
        """
        texts = [qwen3.PREFIX, qwen3.prefix_text(self._instruction, "{query}")]
        texts += [qwen3.suffix_text("{document}"), qwen3.SUFFIX]
        question, answer = self._plain.encode(texts[1:3])
        ids = [self._prefix, question, answer, self._suffix, list(self.answers)]
        return hashlib.sha256(orjson.dumps([texts, ids])).hexdigest()[:12]

    async def tokenize(self, text: str) -> list[int]:
        """The token ids of a text alone; no string in it becomes a control token."""
        if len(text) < _MAX_INLINE_CHARACTERS:
            return self._plain.encode([text])[0]
        loop = asyncio.get_running_loop()
        [ids] = await loop.run_in_executor(self._executor, self._plain.encode, [text])
        return ids

    def decode(self, ids: Sequence[int]) -> list[str]:
        """The text of each token id."""
        return self._plain.decode(ids)

    def encode_blocking(self, request: RankRequest) -> EncodedRequest:
        """Encode one request; only its documents are ever truncated.

        Raises:
            InvalidRequest: query and instruction leave no room for a document, the query
                takes more than half of the prompt, the instruction is too long, or a
                document does not fit and truncation is off.
            TooLarge: the documents make too many chunks.
        """
        exact = _characters(request) <= _MAX_EXACT_CHARACTERS
        if request.instruction is not None:
            self._refuse_long_instruction(request.instruction, exact)
        instruction = self._instruction if request.instruction is None else request.instruction
        question = qwen3.prefix_text(instruction, request.query)
        texts = [qwen3.BEFORE_DOCUMENT + document for document in request.documents]
        if exact:
            asked, query, *ids = self._plain.encode([question, request.query, *texts])
            prefix, query_tokens = (*self._prefix, *asked), len(query)
            rule = self._chunking.rule(request, self._room(prefix, request, exact))
            documents = [EncodedText(*row) for row in zip(ids, texts, strict=True)]
        else:
            prefix = (*self._prefix, *encode_text(self._plain, question, self.max_tokens).ids)
            rule = self._chunking.rule(request, self._room(prefix, request, exact))
            query_tokens = len(encode_text(self._plain, request.query, MARGIN).ids)
            readable, at_start = rule.max_readable_tokens, rule.keeps_start
            documents = [
                encode_text(self._plain, text, readable, at_start=at_start) for text in texts
            ]
        return self._prompts(prefix, query_tokens, documents, rule, details=request.details)

    def _room(self, prefix: tuple[int, ...], request: RankRequest, exact: bool) -> int:
        """Tokens that the prefix leaves for a document.

        Raises:
            InvalidRequest: it leaves none, or the query takes more than half of the prompt or
                than the request allows.
        """
        used = len(prefix) + len(self._suffix)
        room = self.max_tokens - used
        if request.max_prompt_tokens is not None and request.max_prompt_tokens < self.max_tokens:
            room = request.max_prompt_tokens - used
            _refuse_short_prompt(request.max_prompt_tokens, used)
        if room < 1:
            raise InvalidRequest(
                f"query and instruction take {used:,} tokens "
                f"{'' if exact else 'or more '}with the template; "
                f"the limit is {self.max_tokens:,} with the document, and "
                f"{self.max_tokens // 2:,} for the query alone: shorten the query",
                param="query",
            )
        if len(prefix) > self.max_tokens // 2:
            self._refuse_long_query(request.query)
        if request.max_query_tokens is not None:
            self._refuse_query_over(request.max_query_tokens, request.query)
        return room

    def _refuse_long_instruction(self, instruction: str, exact: bool) -> None:
        readable = None if exact else self._max_instruction_tokens
        encoded = encode_text(self._plain, instruction, readable)
        if len(encoded.ids) > self._max_instruction_tokens:
            raise InvalidRequest(
                f"the instruction takes {encoded.count} tokens; "
                f"the limit is {self._max_instruction_tokens:,}: shorten it",
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

    def _refuse_query_over(self, limit: int, query: str) -> None:
        encoded = encode_text(self._plain, query, limit)
        if len(encoded.ids) > limit:
            raise InvalidRequest(
                f"the query takes {encoded.count} tokens and max_tokens_per_query is {limit:,}; "
                "queries are never cut: shorten it, or leave max_tokens_per_query out",
                param="max_tokens_per_query",
            )

    def _prompts(
        self,
        prefix: tuple[int, ...],
        query_tokens: int,
        documents: Sequence[EncodedText],
        rule: ChunkingRule,
        *,
        details: bool,
    ) -> EncodedRequest:
        if rule.refuses:
            _refuse_long_documents(documents, rule.max_whole_tokens)
        chunks = rule.split([len(document.ids) for document in documents])
        return EncodedRequest(
            prompts=tuple(
                Prompt(prefix, (*document.ids[start:end], *self._suffix))
                for document, spans in zip(documents, chunks, strict=True)
                for start, end in spans
            ),
            chunks=tuple(map(len, chunks)),
            document_tokens=tuple(len(document.ids) for document in documents),
            kept_tokens=tuple(spans[-1].end - spans[0].start for spans in chunks),
            longer=tuple(document.longer for document in documents),
            query_tokens=query_tokens,
            spans=self._character_spans(documents, chunks) if details else None,
        )

    def _character_spans(
        self, documents: Sequence[EncodedText], chunks: Sequence[Sequence[Span]]
    ) -> tuple[Span, ...]:
        """For each chunk, its characters in the document as it was sent."""
        lead = len(qwen3.suffix_text(""))
        spans = []
        for document, chunk_spans in zip(documents, chunks, strict=True):
            before = len(document.before)
            parts = [Span(before + start, before + end) for start, end in chunk_spans]
            ids = [*document.before, *document.ids]
            offset = document.skipped - lead
            spans += [
                Span(max(start + offset, 0), max(end + offset, 0))
                for start, end in self._plain.character_spans(document.text, ids, parts)
            ]
        return tuple(spans)


def _refuse_short_prompt(limit: int, used: int) -> None:
    if limit <= used:
        raise InvalidRequest(
            f"query and instruction take {used:,} tokens with the template and "
            f"truncate_prompt_tokens is {limit:,}, with the document: raise it, or send "
            "max_tokens_per_doc, which counts the document alone",
            param="truncate_prompt_tokens",
        )


def _refuse_long_documents(documents: Sequence[EncodedText], limit: int) -> None:
    long = [
        f"documents[{index}] ({document.count})"
        for index, document in enumerate(documents)
        if len(document.ids) > limit
    ]
    if long:
        more = len(long) - _MAX_NAMED
        named = ", ".join(long[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise InvalidRequest(
            f"{len(long)} of {len(documents)} documents exceed {limit:,} tokens and truncation "
            f"is off: {named}",
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
    truncation_policy: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It is immutable.
    chunk_tokens: int = 512,
    chunk_overlap: int = 64,
    executor: Executor | None = None,
) -> PromptEncoder:
    """The encoder with a checkpoint's own `tokenizer.json`.

    Args:
        max_tokens: maximum length of a prompt; the model's own maximum if that is lower.

    Raises:
        BadModel: the file cannot be read, or its tokenizer does not fit the model.
    """
    return PromptEncoder(
        open_tokenizer(checkpoint),
        max_tokens=min(max_tokens, checkpoint.max_tokens),
        instruction=instruction,
        max_instruction_tokens=max_instruction_tokens,
        truncation_policy=truncation_policy,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        executor=executor,
    )
