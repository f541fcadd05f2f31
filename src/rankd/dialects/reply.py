"""`Reply`, from which a dialect renders an answer, and parts of answers that dialects share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.json_io import rounded
from rankd.dialects.request import RequestBody
from rankd.ranking.profiles import Profile
from rankd.types import RankResult, ScoredDocument, best_first


def threshold_of(request: RequestBody, profile: Profile) -> float | None:
    """The threshold that applies: the request's, else the configured one; None: no threshold."""
    if not request.applies_threshold():
        return None
    threshold = request.min_score()
    return profile.threshold if threshold is None else threshold


def above_threshold(
    scored_documents: Sequence[ScoredDocument], request: RequestBody, profile: Profile
) -> Sequence[ScoredDocument]:
    """The documents that reach the request's threshold, or else the configured one.

    The request's threshold is compared with the rounded number that the answer shows, so a
    client can send back a number that it has seen. A configured threshold is always a score.
    """
    threshold, logits = request.min_score(), request.wants_logits()
    if threshold is None:
        threshold, logits = profile.threshold, False
    if threshold is None or not request.applies_threshold():
        return scored_documents
    return [
        document
        for document in scored_documents
        if shown_score(document, logits=logits) >= threshold
    ]


def shown_score(scored_document: ScoredDocument, *, logits: bool) -> float:
    """The score in [0, 1], or the logit in nats, with the digits that answers show."""
    return rounded(scored_document.logit if logits else scored_document.score)


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


_NO_PROFILE = Profile()


@dataclass(frozen=True)
class Reply:
    """A ranked request, from which a dialect renders its answer.

    Attributes:
        path: of the request, without its prefix.
        model: as the client named it, or the served name.
        texts: the documents' texts, in the order of the request.
        ranking: one group; it lacks the documents that were not scored in time.
        not_scored: indexes of documents not scored in time; only for partial requests.
        warnings: sentences for the client, such as unknown fields and documents that were cut.
        device: on which the scores were computed.
        profile: instruction, threshold and calibration that were used.
        provenance: headers that name model, engine and instruction.
    """

    request: RequestBody
    path: str
    model: str
    texts: Sequence[str]
    ranking: RankResult
    not_scored: Sequence[int]
    warnings: Sequence[str]
    device: str = ""
    profile: Profile = _NO_PROFILE
    provenance: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def scored(self) -> list[ScoredDocument]:
        """All scored documents, in the order of the request."""
        return self.ranking.groups[0]

    @cached_property
    def best(self) -> list[ScoredDocument]:
        """The results: documents that reach the threshold, best first, at most `top_n`."""
        return best_first(self._above)[: self.request.result_limit() or None]

    @cached_property
    def _above(self) -> Sequence[ScoredDocument]:
        return above_threshold(self.scored, self.request, self.profile)

    @property
    def threshold(self) -> float | None:
        """The threshold that was applied; None: no threshold."""
        return threshold_of(self.request, self.profile)

    @property
    def left_out(self) -> int | None:
        """Number of documents below the threshold; None: no threshold."""
        return None if self.threshold is None else len(self.scored) - len(self._above)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all pairs, template included."""
        return sum(scored_document.tokens for scored_document in self.scored)

    @property
    def search_units(self) -> int:
        """Cohere's unit; see `billing.py`."""
        return sum(self.ranking.search_units)

    def number(self, scored_document: ScoredDocument) -> float:
        """The score in [0, 1], or the logit if the request wants logits; rounded."""
        return shown_score(scored_document, logits=self._logits)

    @cached_property
    def _logits(self) -> bool:
        return self.request.wants_logits()

    def text(self, scored_document: ScoredDocument) -> str:
        """The document's text."""
        return self.texts[scored_document.index]

    def document(self, scored_document: ScoredDocument) -> dict[str, Any]:
        """The document as an object with `text`, other fields kept."""
        return self.request.echo(scored_document.index, self.text(scored_document))


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
    items = []
    with_documents = reply.request.wants_documents()
    for scored_document in reply.best:
        item: dict[str, Any] = {
            "index": scored_document.index,
            "relevance_score": reply.number(scored_document),
        }
        if with_documents:
            item["document"] = reply.document(scored_document)
        items.append(item)
    return items
