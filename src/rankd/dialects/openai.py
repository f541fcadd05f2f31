"""rankd's own API, `POST /v1/rerank`: accepts what Cohere, Jina and vLLM clients send, and more.

The answer is a superset that all of them can read: vLLM's fields, Cohere's `meta`, Jina's `usage`.
Fields without a value are left out, never null, and `results[]` has no field that a strict parser
(Elasticsearch's) would refuse.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pydantic import AliasChoices, BaseModel, Field

from rankd.config.tables import CUSTOM, DEFAULT
from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.fields import Count, Truncating
from rankd.dialects.json_values import type_name
from rankd.dialects.relevant_spans import (
    DESCRIPTION,
    RELEVANT_SPANS,
    RelevantSpanObject,
    RelevantSpansField,
    add_spans,
)
from rankd.dialects.reply import Reply, ResultObject, UsageObject, document_details, results
from rankd.dialects.request import EchoingDocumentsBody, SentFields, Spellings, example
from rankd.dialects.vllm_options import VllmOptions
from rankd.errors import InvalidRequest
from rankd.types import TruncationPolicy


class OpenAIRerankRequest(VllmOptions, EchoingDocumentsBody):
    model_config = example(
        {
            "query": "What is the capital of China?",
            "documents": [
                "The capital of China is Beijing.",
                "Gravity is a force that attracts two bodies towards each other.",
            ],
        }
    )

    rank_fields: list[str] | None = Field(
        None,
        description="Fields of object documents to rank by, in this order. Default: `text`, or all "
        "fields of a document without it.",
    )
    truncation: Truncating | None = Field(
        None,
        description="If a document does not fit: `cut` (true), `refuse` (false; 400) or `chunk` "
        "(best counts). Default: the server's --truncation (cut).",
    )
    max_tokens_per_doc: Count | None = Field(
        None,
        ge=0,
        description="Maximum tokens per document, or per chunk; 0 is the default. Default: the "
        "model's limit, or with `chunk` 512.",
    )
    max_chunks_per_doc: Count | None = Field(
        None,
        ge=1,
        description="Maximum chunks per long document; the best chunk counts. Default: the "
        "document is cut, or with `chunk` read in as many as needed.",
    )
    overlap_tokens: Count | None = Field(
        None,
        ge=0,
        description="Tokens shared by neighbouring chunks. Default: 0, or 64 for chunks of the "
        "default length.",
    )
    return_details: bool | None = Field(
        None,
        description="Add `tokens`, `truncated`, `chunk` and, if calibrated, `normalized_score` to "
        "each result. Default: false.",
    )
    relevant_spans: RelevantSpansField | None = Field(
        None,
        description=f"{DESCRIPTION} true, or an object with `threshold` and `max_spans`. "
        "Default: false.",
    )
    raw_scores: bool | None = Field(
        None, description="true: return raw logits, in nats. Default: false."
    )
    kwargs_: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("kwargs"),
        description="Xinference's options, as JSON; only `instruction` is read. Default: empty.",
    )
    # Sent by Xinference's client.
    return_len: bool | None = Field(
        None, description="Accepted without effect: answers always have token counts."
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents(self.rank_fields)
        sent.truncation = self._truncation()
        if self.max_tokens_per_query or self.truncate_prompt_tokens is not None:
            self.add_limits(sent)
        if self.chat_template_kwargs or self.kwargs_:
            sent.instructions = {
                **instruction_in("chat_template_kwargs", self.chat_template_kwargs),
                **instruction_in("kwargs", self.kwargs_),
            }
        activation = self.use_activation
        sent.logits = Spellings(
            use_activation=None if activation is None else not activation,
            raw_scores=self.raw_scores,
        )
        sent.details = bool(self.return_details)
        sent.spans = self.relevant_spans
        return sent

    def _truncation(self) -> TruncationPolicy:
        chunks = self.max_chunks_per_doc
        if self.truncation in ("cut", "refuse") and chunks is not None and chunks > 1:
            raise InvalidRequest(
                f"truncation {self.truncation!r} makes no chunks and max_chunks_per_doc is "
                f"{chunks:,}; send only one of the two, or truncation 'chunk'",
                param="max_chunks_per_doc",
            )
        truncation = self.truncation
        if truncation is None and chunks is None and self.truncate_prompt_tokens is not None:
            truncation = "cut"
        return TruncationPolicy(
            tokens=self.max_tokens_per_doc or None,
            truncation=truncation,
            chunks=chunks,
            overlap=self.overlap_tokens,
            side=self.truncation_side,
        )


def instruction_in(name: str, container: str | dict[str, Any] | None) -> dict[str, str | None]:
    """The instruction inside an object field, keyed by its path, such as `kwargs.instruction`.

    Args:
        name: the field's name in the body.
        container: the field's value: an object, its JSON text, or None.

    Raises:
        InvalidRequest: the value is not a JSON object, or its instruction is not a string.
    """
    if container is None:
        return {}
    path = f"{name}.instruction"
    if isinstance(container, str):
        container = _object(container, name)
    instruction = (container or {}).get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InvalidRequest(f"{path} must be a string, not {type_name(instruction)}", param=path)
    return {path: instruction}


# Maximum characters of an object sent as JSON text; only an instruction is read from it.
_MAX_OBJECT_CHARACTERS = 100_000


def _object(text: str, name: str) -> dict[str, Any] | None:
    if len(text) > _MAX_OBJECT_CHARACTERS:
        raise InvalidRequest(
            f"{name} has {len(text):,} characters; the limit is {_MAX_OBJECT_CHARACTERS:,}",
            param=name,
        )
    try:
        value = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        value = text
    if value is None or isinstance(value, dict):
        return value
    raise InvalidRequest(f"{name} must be an object as JSON text", param=name)


class Tokens(BaseModel):
    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    api_version: dict[str, str]
    billed_units: dict[str, int] = Field(
        description="`search_units` as Cohere counts: one per query with up to 100 documents; a "
        "document of more than 500 tokens, query included, counts as several."
    )
    tokens: Tokens
    warnings: list[str] | None = Field(
        None, description="Unknown fields and documents that were cut; absent if there are none."
    )


class OpenAIMeta(Meta):
    cached_documents: int = Field(description="Documents whose score came from the cache.")
    not_scored: list[int] | None = Field(
        None,
        description="Indexes of documents missing from a partial answer; absent if there are none.",
    )
    preset: str | None = Field(
        None,
        description="Name of the preset that was used; absent if there was none.",
    )
    score_threshold: float | None = Field(
        None, description="Minimum score that was applied; absent if there was none."
    )
    below_threshold: int | None = Field(
        None, description="Documents left out for a lower score; absent without a threshold."
    )


class OpenAIUsage(UsageObject):
    cached_tokens: int = Field(
        description="Prompt tokens of pairs whose score came from the cache."
    )


class ChunkObject(BaseModel):
    index: int = Field(description="Index among the document's chunks, from 0.")
    of: int = Field(description="Chunks that were read; 1 if the document was not split.")
    start: int = Field(
        description="Offset of its first character in the document's text, from 0, in Unicode "
        "code points."
    )
    end: int = Field(description="Offset after its last character.")


class OpenAIResult(ResultObject):
    tokens: int | None = Field(
        None,
        description="Tokens the model read for this document, template included; only with "
        "return_details.",
    )
    truncated: bool | None = Field(
        None, description="Whether part of the document was not read; only with return_details."
    )
    chunk: ChunkObject | None = Field(
        None, description="The chunk that has this score; only with return_details."
    )
    normalized_score: float | None = Field(
        None,
        description="Calibrated probability of relevance; absent without calibration or "
        "return_details.",
    )
    relevant_spans: list[RelevantSpanObject] | None = Field(None, description=RELEVANT_SPANS)


class OpenAIRerankResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str = Field(description="The name in the request, or else the served name.")
    results: list[OpenAIResult] = Field(description="Most relevant first.")
    meta: OpenAIMeta
    usage: OpenAIUsage
    tokens: Tokens = Field(description="Same as `meta.tokens`; SiliconFlow's clients read it here.")


class OpenAI(Dialect):
    name = "openai"
    about = "rankd's own API: a superset of Cohere's, Jina's and vLLM's."
    Request = OpenAIRerankRequest
    response = OpenAIRerankResponse
    detection_rank = 70
    matchers = (BodyMatcher.on(documents="any"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        found = results(reply)
        if reply.answer.details:
            for item, result in zip(found, reply.best, strict=True):
                item |= document_details(result.scored, reply.profile)
        if reply.answer.relevant_spans:
            add_spans(found, reply.best)
        return {
            "id": reply.id,
            "object": "rerank",
            "created": int(time.time()),
            "model": reply.model,
            "results": found,
            "meta": {
                **meta(reply, "1" if reply.path.endswith("/v1/rerank") else "2"),
                "cached_documents": reply.usage.cached_documents,
                **({"not_scored": reply.not_scored} if reply.not_scored else {}),
                **_profile_fields(reply),
            },
            "usage": {
                "prompt_tokens": reply.tokens,
                "total_tokens": reply.tokens,
                "cached_tokens": reply.usage.cached_tokens,
            },
            "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
        }


def _profile_fields(reply: Reply) -> dict[str, Any]:
    """The preset, the threshold, and the number of documents below it, as far as each applies."""
    fields: dict[str, Any] = {}
    if reply.profile.preset not in (DEFAULT, CUSTOM):
        fields["preset"] = reply.profile.preset
    if (threshold := reply.answer.threshold) is not None:
        fields |= {"score_threshold": threshold.value, "below_threshold": reply.left_out}
    return fields


def meta(reply: Reply, version: str) -> dict[str, Any]:
    """Cohere's `meta`: API version, billed units, token counts and warnings."""
    fields: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": reply.usage.search_units},
        "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
    }
    if reply.warnings:
        fields["warnings"] = list(reply.warnings)
    return fields


dialect = OpenAI()
