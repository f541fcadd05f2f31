"""Our own manner, `POST /v1/rerank`: what Cohere, Jina and vLLM clients send, and more.

The answer is the superset that all of them can read: vLLM's fields, Cohere's
`meta`, Jina's `usage`. Absent is absent, never null, and `results[]` holds nothing
that a strict reader (Elasticsearch) would refuse.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, Field

from rankd.config.tables import CUSTOM, DEFAULT
from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.fields import Count, Truncating, type_name
from rankd.dialects.reply import Reply, ResultObject, UsageObject, document_details, results, usage
from rankd.dialects.request import EchoingDocumentsBody, agreed, example
from rankd.errors import InvalidRequest
from rankd.types import TruncationPolicy


class OpenAIRerankRequest(EchoingDocumentsBody):
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
        description="Fields of object documents that are read, in this order; `text`, or else all, "
        "when absent.",
    )
    truncation: Truncating | None = Field(
        None,
        description="What becomes of a document that does not fit: `cut` (or true), `refuse` (or "
        "false: a 400 that names it), or `chunk`: all of it is read, in chunks, of which the best "
        "counts; the server's --truncation (cut) when absent.",
    )
    truncation_side: Literal["right", "left"] | None = Field(
        None,
        description="Which end of it is left out: right is that of the text; the server's "
        "--truncation-side (right) when absent.",
    )
    max_tokens_per_doc: Count | None = Field(
        None,
        ge=0,
        description="Tokens of a document that fit, and of a chunk; when 0 or absent what the "
        "model allows, and of `chunk` the server's --chunk-tokens (512).",
    )
    max_chunks_per_doc: Count | None = Field(
        None,
        ge=1,
        description="A document that does not fit is read in up to so many chunks, of which the "
        "best counts; when absent it is cut, or with `chunk` read in as many as it takes.",
    )
    overlap_tokens: Count | None = Field(
        None,
        ge=0,
        description="Tokens that two neighbouring chunks share; when absent 0, or of chunks whose "
        "length the server decides its --chunk-overlap (64).",
    )
    return_details: bool | None = Field(
        None,
        description="true: results say how many tokens were read of their document, whether it "
        "was cut, where its best chunk stands, and, with a calibration, the `normalized_score`; "
        "false when absent.",
    )
    use_activation: bool | None = Field(
        None, description="false: raw logits, in nats; true when absent."
    )
    raw_scores: bool | None = Field(
        None, description="true: raw logits, in nats; false when absent."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Of it only `instruction` is read; none when absent."
    )
    kwargs_: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("kwargs"),
        description="Xinference's, as JSON text; of it only `instruction` is read; {} when absent.",
    )
    # Sent by clients that mean no harm: the benchmark of vLLM, Xinference's client.
    truncate_prompt_tokens: int | None = Field(None, description="Accepted; has no effect.")
    return_len: bool | None = Field(None, description="Accepted; token counts always come.")

    def fields(self) -> Sequence[str]:
        return self.rank_fields or ()

    def truncation_policy(self) -> TruncationPolicy:
        chunks = self.max_chunks_per_doc
        if self.truncation in ("cut", "refuse") and chunks is not None and chunks > 1:
            raise InvalidRequest(
                f"truncation {self.truncation!r} makes no chunks and max_chunks_per_doc is "
                f"{chunks:,}; send one, or truncation 'chunk'",
                param="max_chunks_per_doc",
            )
        return TruncationPolicy(
            tokens=self.max_tokens_per_doc or None,
            truncation=self.truncation,
            chunks=chunks,
            overlap=self.overlap_tokens,
            side=self.truncation_side,
        )

    def details(self) -> bool:
        return bool(self.return_details)

    def wants_logits(self) -> bool:
        return bool(
            agreed(
                use_activation=None if self.use_activation is None else not self.use_activation,
                raw_scores=self.raw_scores,
            )
        )

    def instructions(self) -> dict[str, str | None]:
        return {
            **super().instructions(),
            **instruction_in("chat_template_kwargs", self.chat_template_kwargs),
            **instruction_in("kwargs", self.kwargs_),
        }


def instruction_in(name: str, container: str | dict[str, Any] | None) -> dict[str, str | None]:
    """The instruction in one of the objects where frameworks hide it, by its path.

    Raises:
        InvalidRequest: the container is no JSON object, or its instruction is no string.
    """
    path = f"{name}.instruction"
    if isinstance(container, str):
        container = _object(container, name)
    instruction = (container or {}).get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise InvalidRequest(f"{path} must be a string, not {type_name(instruction)}", param=path)
    return {path: instruction}


# Characters of an object that came as text; nobody hides more than an instruction in it.
_LONGEST_OBJECT = 100_000


def _object(text: str, name: str) -> dict[str, Any] | None:
    if len(text) > _LONGEST_OBJECT:
        raise InvalidRequest(
            f"{name} has {len(text):,} characters; the limit is {_LONGEST_OBJECT:,}", param=name
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
        description="`search_units`, as Cohere counts: a query with up to 100 documents; one of "
        "more than 500 tokens, the query included, counts as several."
    )
    tokens: Tokens
    warnings: list[str] | None = Field(
        None, description="Unknown fields, documents that were cut; absent when there are none."
    )


class OpenAIMeta(Meta):
    cached_documents: int = Field(description="Documents whose score was computed before.")
    not_scored: list[int] | None = Field(
        None,
        description="Of a partial answer, the documents that were not scored in time, by index; "
        "absent when there are none.",
    )

    preset: str | None = Field(
        None,
        description="The name of the instruction that was used; absent when it was the server's "
        "own, or the request's.",
    )
    score_threshold: float | None = Field(
        None, description="What documents had to reach; absent when there was no threshold."
    )
    below_threshold: int | None = Field(
        None, description="Documents that did not and are left out; likewise."
    )


class OpenAIUsage(UsageObject):
    cached_tokens: int = Field(
        description="Of the prompt's tokens, those of pairs that were scored before."
    )


class ChunkObject(BaseModel):
    index: int = Field(description="Its place among the document's chunks, from 0.")
    of: int = Field(description="How many of them were read; 1 when it was not split.")
    start: int = Field(
        description="The first of its characters in the document's text, from 0; Unicode code "
        "points, as Python counts."
    )
    end: int = Field(description="The one behind its last.")


class OpenAIResult(ResultObject):
    tokens: int | None = Field(
        None,
        description="Tokens that the model read for this document, template included; only with "
        "return_details.",
    )
    truncated: bool | None = Field(
        None, description="Whether a part of it was not read; only with return_details."
    )
    chunk: ChunkObject | None = Field(
        None, description="The part that has this score; only with return_details."
    )
    normalized_score: float | None = Field(
        None,
        description="How probable it is that the document is relevant, by the calibration of its "
        "instruction; absent without one, or without return_details.",
    )


class OpenAIRerankResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str = Field(description="As the request named it, or the served name.")
    results: list[OpenAIResult] = Field(description="Most relevant first.")
    meta: OpenAIMeta
    usage: OpenAIUsage
    tokens: Tokens = Field(description="As in `meta`, where SiliconFlow's clients look.")


class OpenAI(Dialect):
    name = "openai"
    about = "rankd's own manner: the superset of Cohere, Jina and vLLM."
    Request = OpenAIRerankRequest
    response = OpenAIRerankResponse
    detection_rank = 70
    matchers = (BodyMatcher.on(documents="any"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": reply.id,
            "object": "rerank",
            "created": int(time.time()),
            "model": reply.model,
            "results": _results(reply),
            "meta": {
                **meta(reply, "1" if reply.path.endswith("/v1/rerank") else "2"),
                "cached_documents": sum(scored_document.cached for scored_document in reply.scored),
                **({"not_scored": reply.not_scored} if reply.not_scored else {}),
                **_judged(reply),
            },
            "usage": {
                **usage(reply),
                "cached_tokens": reply.ranking.usage().cached_tokens,
            },
            "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
        }


def _judged(reply: Reply) -> dict[str, Any]:
    """By which preset, and what a threshold took away."""
    said: dict[str, Any] = {}
    if reply.profile.preset not in (DEFAULT, CUSTOM):
        said["preset"] = reply.profile.preset
    if reply.threshold is not None:
        said |= {"score_threshold": reply.threshold, "below_threshold": reply.left_out}
    return said


def _results(reply: Reply) -> list[dict[str, Any]]:
    found = results(reply)
    if reply.request.details():
        for result, scored_document in zip(found, reply.best, strict=True):
            result |= document_details(scored_document, reply.profile)
    return found


def meta(reply: Reply, version: str) -> dict[str, Any]:
    """Cohere's place for counts and warnings."""
    said: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": reply.search_units},
        "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
    }
    if reply.warnings:
        said["warnings"] = list(reply.warnings)
    return said


dialect = OpenAI()
