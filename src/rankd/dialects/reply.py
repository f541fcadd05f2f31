"""`Reply`, from which a dialect renders an answer, and parts of answers that dialects share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.resolved import AnswerOptions, ResolvedRequest
from rankd.ranking.profiles import Profile
from rankd.telemetry.timings import StageTimings
from rankd.types import (
    BY_LOGIT,
    RankResult,
    RankUsage,
    ScoredDocument,
    rounded,
    shown_numbers,
)


def above_threshold(
    documents: Sequence[ScoredDocument], options: AnswerOptions
) -> Sequence[ScoredDocument]:
    """The documents that reach the threshold; all of them without one."""
    return documents if options.threshold is None else options.threshold.kept(documents)


def document_details(scored_document: ScoredDocument, profile: Profile) -> dict[str, Any]:
    """The fields of a result that `return_details` adds."""
    start, end = scored_document.span or (0, 0)
    chunk = {
        "index": scored_document.chunk,
        "of": scored_document.chunks,
        "start": start,
        "end": end,
    }
    details = {
        "tokens": scored_document.tokens,
        "truncated": scored_document.truncated,
        "chunk": chunk,
    }
    if (probability := profile.normalized(scored_document)) is not None:
        details["normalized_score"] = rounded(probability)
    return details


@dataclass(slots=True)  # Not frozen: that would take three times as long to make.
class AnswerResult:
    """One result of an answer.

    Attributes:
        index: of the document in the request, from 0.
        number: the score in [0, 1], or the logit in nats; rounded.
        text: of the document.
        scored: what the model said of it.
    """

    index: int
    number: float
    text: str
    scored: ScoredDocument


@dataclass(frozen=True, slots=True)
class Reply:
    """A ranked request, from which a dialect renders its answer.

    Attributes:
        request: the resolved request; its parts `answer`, `profile` and `model` are repeated here.
        ranking: it lacks the documents that were not scored in time.
        scored: all scored documents, in the order of the request; those of several queries are
            numbered one after another.
        timings: of the ranking.
        usage: what the request is charged for.
        tokens: of all pairs, template included.
        best: the results: documents that reach the threshold, best first, at most `top_n`.
        left_out: number of documents below the threshold; None: no threshold.
        not_scored: indexes of documents not scored in time; only for partial requests.
        warnings: sentences for the client, such as unknown fields and documents that were cut.
        path: of the request, without its prefix.
        device: on which the scores were computed.
        provenance: headers that name model, engine and instruction.
        id: new for each answer.
    """

    request: ResolvedRequest
    answer: AnswerOptions
    profile: Profile
    model: str
    ranking: RankResult
    scored: Sequence[ScoredDocument]
    timings: StageTimings
    usage: RankUsage
    tokens: int
    best: Sequence[AnswerResult]
    left_out: int | None
    not_scored: Sequence[int]
    warnings: Sequence[str]
    path: str
    device: str
    provenance: Mapping[str, str]
    id: str

    @property
    def numbers(self) -> list[float]:
        """As `AnswerResult.number`, of all scored documents."""
        return shown_numbers(self.scored, logits=self.answer.logits)


def best_results(
    documents: Sequence[ScoredDocument], texts: Sequence[str], options: AnswerOptions
) -> list[AnswerResult]:
    """The results of an answer.

    Args:
        documents: those that reach the threshold, in the order of the request.
    """
    best = sorted(documents, key=BY_LOGIT, reverse=True)[: options.top_n]
    numbers = shown_numbers(best, logits=options.logits)
    return [
        AnswerResult(scored.index, number, texts[scored.index], scored)
        for scored, number in zip(best, numbers, strict=True)
    ]


def renumbered(documents: Iterable[ScoredDocument]) -> list[ScoredDocument]:
    """Documents of several queries, each indexed from 0, with consecutive indexes."""
    return [replace(document, index=index) for index, document in enumerate(documents)]


class DocumentObject(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str


class ResultObject(BaseModel):
    index: int = Field(description="Index of the document in the request, from 0.")
    relevance_score: float = Field(description="Score in [0, 1], or the logit if requested.")
    document: DocumentObject | None = Field(None, description="Absent if not requested.")


class UsageObject(BaseModel):
    prompt_tokens: int = Field(description="Tokens of all pairs, template included.")
    total_tokens: int


def usage(reply: Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.tokens, "total_tokens": reply.tokens}


def results(reply: Reply) -> list[dict[str, Any]]:
    """Cohere's `results`, best first; `document` is an object or absent, never null."""
    if not reply.answer.return_documents:
        return [{"index": result.index, "relevance_score": result.number} for result in reply.best]
    sent = reply.answer.documents
    return [
        {
            "index": result.index,
            "relevance_score": result.number,
            "document": {**document, "text": result.text}
            # Other fields of an object are kept.
            if isinstance(document := sent[result.index], dict)
            else {"text": result.text},
        }
        for result in reply.best
    ]
