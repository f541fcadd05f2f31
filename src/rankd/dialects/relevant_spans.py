"""`relevant_spans`: which sentences of each document answer the query.

The field, its defaults and the spans in results are those of Cohere's Rerank 5.
Source: the types of Cohere's SDK 7.3.1, and docs.cohere.com/reference/rerank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from rankd.dialects.fields import Count, Number, is_switch
from rankd.dialects.json_values import type_name
from rankd.dialects.reply import AnswerResult
from rankd.dialects.resolved import ResolvedRequest
from rankd.types import RelevantSpan, SpanOptions, rounded_all, sigmoids

DEFAULT_THRESHOLD = 0.1


class CohereRelevantSpans(BaseModel):
    # Unknown fields are kept, so that a warning can name them.
    model_config = ConfigDict(extra="allow")

    mode: Literal["enabled", "disabled"] = Field(description="Whether results hold relevant spans.")
    threshold: Number | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Minimum score of a span, 0 to 1. Default: 0.1.",
    )
    max_spans: Count | None = Field(
        None, ge=1, description="Maximum spans per document, most relevant first. Default: all."
    )


class RelevantSpans(CohereRelevantSpans):
    mode: Literal["enabled", "disabled"] = Field(
        "enabled", description="Whether results hold relevant spans. Default: enabled."
    )


def _from_switch(value: Any) -> Any:
    """`{mode}` for a boolean or a text that stands for one."""
    if is_switch(value):
        return {"mode": "enabled" if str(value).lower() == "true" else "disabled"}
    if not isinstance(value, dict):
        raise ValueError(f"must be true, false or an object, not {type_name(value)}")
    return value


RelevantSpansField = Annotated[
    RelevantSpans,
    BeforeValidator(_from_switch),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, RelevantSpans.model_json_schema()]}),
]

DESCRIPTION = (
    "Which sentences of each document answer the query: results get `relevant_spans`. Each "
    "sentence is scored, which costs tokens."
)


class RelevantSpanObject(BaseModel):
    start: int = Field(
        description="Offset of its first character in the document's text, from 0, in Unicode "
        "code points."
    )
    end: int = Field(description="Offset after its last character.")
    score: float = Field(description="Score of the sentence, in [0, 1].")


RELEVANT_SPANS = "Sentences that answer the query, most relevant first; absent if there are none."


def with_spans(request: ResolvedRequest, sent: CohereRelevantSpans) -> ResolvedRequest:
    """The request with its spans, as the field says."""
    if sent.mode == "disabled":
        return request
    answer = request.answer
    options = SpanOptions(
        min_score=DEFAULT_THRESHOLD if sent.threshold is None else sent.threshold,
        max_spans=sent.max_spans,
        top_n=answer.top_n,
        threshold=answer.threshold,
    )
    return replace(
        request,
        answer=replace(answer, relevant_spans=True),
        ranks=tuple([replace(rank, details=True, spans=options) for rank in request.ranks]),
    )


def add_spans(results: Sequence[dict[str, Any]], best: Sequence[AnswerResult]) -> None:
    """Add `relevant_spans` to the results of an answer that have any."""
    for item, result in zip(results, best, strict=True):
        if spans := result.scored.relevant_spans:
            item["relevant_spans"] = span_objects(spans)


def span_objects(spans: Sequence[RelevantSpan]) -> list[dict[str, Any]]:
    """Spans as in answers, with rounded scores."""
    scores = rounded_all(sigmoids([span.logit for span in spans]))
    return [
        {"start": span.start, "end": span.end, "score": score}
        for span, score in zip(spans, scores, strict=True)
    ]
