"""Encodes requests as prompts: the prefix once, all documents in one batch.

A prompt is prefix + suffix: what comes before the document (in Qwen3's template instruction and
query), then the document and the rest of the template. Only documents are ever truncated.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import orjson

from rankd.errors import BadSettings, InvalidRequest
from rankd.models.checkpoint import Checkpoint
from rankd.prompts.chunking import ChunkingDefaults, ChunkingRule
from rankd.prompts.estimate import TokenEstimator
from rankd.prompts.model_prompt import ModelPrompt, model_prompt
from rankd.prompts.offsets import Span
from rankd.prompts.partial import MARGIN, EncodedText, encode_text
from rankd.prompts.template import DOCUMENT, INSTRUCTION, QUERY, EncodedTemplate
from rankd.prompts.tokenizer import Tokenizer, open_tokenizer
from rankd.types import Prompt, RankRequest, TruncationPolicy

# Maximum tokens of an instruction that a request or a preset brings; more is an error.
MAX_INSTRUCTION_TOKENS = 512

# A request with fewer characters is encoded on the event loop: that takes 0.5 ms (Chinese: 3 ms).
# Handing it to a thread costs another 0.2 ms of CPU, a third of a request with five documents.
_MAX_INLINE_CHARACTERS = 10_000

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
    """Encodes query-document pairs in the model's template.

    Attributes:
        answers: the answers that the score is read from.
        instruction: the server's instruction; None if the prompt has none by default.
        notes: what the checkpoint states of prompt and score, one line each.
        max_tokens: maximum length of a prompt, in tokens.
        truncation_policy: the server's policy for documents that do not fit; a request overrides
            it. Only its truncation and side are used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: ModelPrompt,
        *,
        max_tokens: int,
        instruction: str | None,
        max_instruction_tokens: int,
        truncation_policy: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It is immutable.
        chunk_tokens: int = 512,
        chunk_overlap: int = 64,
        executor: Executor | None = None,
    ) -> None:
        self.truncation_policy = truncation_policy
        self.answers = prompt.answers
        self.notes = prompt.notes
        self.max_tokens = max_tokens
        self.instruction = instruction
        self._plain = tokenizer.plain
        self._instructed, bare = (
            None if template is None else EncodedTemplate(template, tokenizer)
            for template in (prompt.instructed, prompt.bare)
        )
        own = bare if instruction is None else self._instructed
        assert own is not None
        self._own = own
        self._max_instruction_tokens = max_instruction_tokens
        self._executor = executor
        self._chunking = ChunkingDefaults(truncation_policy, chunk_tokens, chunk_overlap)
        self._estimator = TokenEstimator(
            self._plain,
            self._chunking,
            template_tokens=min(
                template.fixed_tokens for template in (self._instructed, bare) if template
            ),
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
        """Token ids of the template before instruction and query."""
        return self._own.prefix

    @property
    def suffix(self) -> tuple[int, ...]:
        """Token ids of the template after query and document."""
        return self._own.suffix

    @property
    def template_name(self) -> str:
        """`qwen3`, or the file of the model's chat template."""
        return self._own.template.name

    @property
    def text(self) -> str:
        """The prompt's text, with {instruction}, {query} and {document} where texts belong."""
        return self._own.template.filled("{instruction}", "{query}", "{document}")

    @property
    def takes_instruction(self) -> bool:
        """Whether the template has a place for an instruction."""
        return self._instructed is not None

    @cached_property
    def template(self) -> str:
        """Twelve hex digits that identify the prompt around a query and a document.

        They change with the template's text and token ids, the default instruction, and the
        answers.
        """
        strips = [slot for slot in (QUERY, DOCUMENT) if slot in self._own.template.strips]
        texts = (self.instruction or "", "{query}", "{document}")
        ids = self._own.encoded(self._plain, *texts)
        facts = [self.text, self.instruction, strips, ids, list(self.answers)]
        return hashlib.sha256(orjson.dumps(facts)).hexdigest()[:12]

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
        template, instruction = self._own, self.instruction
        if request.instruction is not None:
            template, instruction = self._for_instruction(request.instruction, exact)
        sent = request
        if template.template.strips:
            request = _stripped(request, template.template.strips)
        slots = {INSTRUCTION: instruction or "", QUERY: request.query}
        runs = ["".join([slots.get(part, part) for part in run]) for run in template.runs]
        lead, trail = template.lead, template.trail
        texts = [f"{lead}{document}{trail}" for document in request.documents]
        if exact:
            query, *ids = self._plain.encode([request.query, *runs, *texts])
            frame = _Frame(template, *template.around(ids[: len(runs)]))
            rule = self._chunking.rule(request, self._room(frame, request, exact))
            query_tokens, ids = len(query), ids[len(runs) :]
            documents = [EncodedText(*row) for row in zip(ids, texts, strict=True)]
        else:
            parts = [encode_text(self._plain, run, self.max_tokens).ids for run in runs]
            frame = _Frame(template, *template.around(parts))
            rule = self._chunking.rule(request, self._room(frame, request, exact))
            query_tokens = len(encode_text(self._plain, request.query, MARGIN).ids)
            readable, at_start = rule.max_readable_tokens, rule.keeps_start
            documents = [
                encode_text(self._plain, text, readable, at_start=at_start) for text in texts
            ]
        encoded = self._prompts(frame, query_tokens, documents, rule)
        if request.details:
            spans = self._character_spans(template, sent, documents, rule)
            return replace(encoded, spans=spans)
        return encoded

    def _room(self, frame: _Frame, request: RankRequest, exact: bool) -> int:
        """Tokens that the frame leaves for a document.

        Raises:
            InvalidRequest: it leaves none, or the query takes more than half of the prompt or
                than the request allows.
        """
        template = frame.template
        used = len(frame.before) + len(frame.after) + len(template.opening) + len(template.closing)
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
        if used > self.max_tokens // 2:
            self._refuse_long_query(request.query)
        if request.max_query_tokens is not None:
            self._refuse_query_over(request.max_query_tokens, request.query)
        return room

    def _for_instruction(self, instruction: str, exact: bool) -> tuple[EncodedTemplate, str]:
        """The template for a request's own instruction.

        Raises:
            InvalidRequest: the template has no place for one, or it is too long.
        """
        if self._instructed is None:
            raise InvalidRequest(
                "this model's prompt has no place for an instruction: leave it out, or write it "
                "into the query",
                param="instruction",
            )
        readable = None if exact else self._max_instruction_tokens
        encoded = encode_text(self._plain, instruction, readable)
        if len(encoded.ids) > self._max_instruction_tokens:
            raise InvalidRequest(
                f"the instruction takes {encoded.count} tokens; "
                f"the limit is {self._max_instruction_tokens:,}: shorten it",
                param="instruction",
            )
        return self._instructed, instruction

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
        frame: _Frame,
        query_tokens: int,
        documents: Sequence[EncodedText],
        rule: ChunkingRule,
    ) -> EncodedRequest:
        if rule.refuses:
            _refuse_long_documents(documents, rule.max_whole_tokens)
        chunks = rule.split([len(document.ids) for document in documents])
        template, before, after = frame
        opening, closing = template.opening, template.closing
        return EncodedRequest(
            prompts=tuple(
                Prompt(
                    before,
                    (
                        *(opening if start else ()),
                        *document.ids[start:end],
                        *(closing if end < len(document.ids) else ()),
                        *after,
                    ),
                )
                for document, spans in zip(documents, chunks, strict=True)
                for start, end in spans
            ),
            chunks=tuple(map(len, chunks)),
            document_tokens=tuple(len(document.ids) for document in documents),
            kept_tokens=tuple(spans[-1].end - spans[0].start for spans in chunks),
            longer=tuple(document.longer for document in documents),
            query_tokens=query_tokens,
        )

    def _character_spans(
        self,
        template: EncodedTemplate,
        request: RankRequest,
        documents: Sequence[EncodedText],
        rule: ChunkingRule,
    ) -> tuple[Span, ...]:
        """For each chunk, its characters in the document as it was sent."""
        spans = []
        chunks = rule.split([len(document.ids) for document in documents])
        for text, document, chunk_spans in zip(request.documents, documents, chunks, strict=True):
            removed = len(text) - len(text.lstrip()) if DOCUMENT in template.template.strips else 0
            before = len(document.before)
            parts = [Span(before + start, before + end) for start, end in chunk_spans]
            ids = [*document.before, *document.ids]
            offset = document.skipped - len(template.lead) + removed
            spans += [
                Span(*(min(max(position + offset, removed), len(text)) for position in span))
                for span in self._plain.character_spans(document.text, ids, parts)
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


class _Frame(NamedTuple):
    """What is around the documents of one request, as token ids."""

    template: EncodedTemplate
    before: tuple[int, ...]
    after: tuple[int, ...]


def _stripped(request: RankRequest, slots: frozenset[str]) -> RankRequest:
    """The request as its template reads it: without white space around some texts."""
    query, documents = request.query, request.documents
    return replace(
        request,
        query=query.strip() if QUERY in slots else query,
        documents=tuple(map(str.strip, documents)) if DOCUMENT in slots else documents,
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
    prefer_stated: bool = False,
    truncation_policy: TruncationPolicy = TruncationPolicy(),  # noqa: B008  # It is immutable.
    chunk_tokens: int = 512,
    chunk_overlap: int = 64,
    executor: Executor | None = None,
) -> PromptEncoder:
    """The encoder with a checkpoint's own tokenizer and prompt.

    Args:
        max_tokens: maximum length of a prompt; the model's own maximum if that is lower.
        prefer_stated: the checkpoint's own default instruction replaces `instruction`.

    Raises:
        BadModel: a file cannot be read, the tokenizer does not fit the model, or the checkpoint
            states a prompt that rankd cannot build.
        BadSettings: the prompt has no place for the instruction.
    """
    tokenizer = open_tokenizer(checkpoint)
    prompt = model_prompt(checkpoint, tokenizer)
    if not prefer_stated and prompt.instructed is None:
        raise BadSettings(
            f"instruction: the prompt of {checkpoint.name} has no place for one; leave it out"
        )
    return PromptEncoder(
        tokenizer,
        prompt,
        max_tokens=min(max_tokens, checkpoint.max_tokens),
        instruction=prompt.default_instruction(instruction) if prefer_stated else instruction,
        max_instruction_tokens=max_instruction_tokens,
        truncation_policy=truncation_policy,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        executor=executor,
    )
