"""What a dialect renders an answer from, and the parts of answers that dialects share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects import json_io
from rankd.dialects.request import RequestBody
from rankd.ranking.profiles import Profile
from rankd.types import RankResult, ScoredDocument, best_first


def threshold_of(request: RequestBody, profile: Profile) -> float | None:
    """What documents are compared with; None where nothing is left out."""
    if not request.applies_threshold():
        return None
    least = request.min_score()
    return profile.threshold if least is None else least


def above_threshold(
    scored_documents: Sequence[ScoredDocument], request: RequestBody, profile: Profile
) -> Sequence[ScoredDocument]:
    """Those that are not below the request's threshold, or else the configured one.

    Compared is what the wire shows: a caller may send a number back that it has seen. What
    is configured is meant for the score, whatever the answer shows.
    """
    least, logits = request.min_score(), request.wants_logits()
    if least is None:
        least, logits = profile.threshold, False
    if least is None or not request.applies_threshold():
        return scored_documents
    return [
        one
        for one in scored_documents
        if json_io.rounded(one.logit if logits else one.score) >= least
    ]


def document_details(scored_document: ScoredDocument, profile: Profile) -> dict[str, Any]:
    """What was read of a document, which part of it counts, and how probable it is."""
    start, end = scored_document.span or (0, 0)
    chunk = {
        "index": scored_document.chunk,
        "of": scored_document.chunks,
        "start": start,
        "end": end,
    }
    said = {
        "tokens": scored_document.tokens,
        "truncated": scored_document.truncated,
        "chunk": chunk,
    }
    if (probability := profile.normalized(scored_document)) is not None:
        said["normalized_score"] = json_io.rounded(probability)
    return said


_NO_PROFILE = Profile()


@dataclass(frozen=True)
class Reply:
    """What a dialect has to render an answer from.

    Attributes:
        texts: of the documents, in the order of the request.
        verdicts: one for each of them, in the same order; without those not scored in time.
        not_scored: documents for which the time did not suffice, by index; only when that
            was allowed.
        model: as the client named it, or the served name.
        warnings: what the caller should know: unknown fields, documents that were cut.
        device: where it was computed.
        profile: by what it was judged.
        provenance: headers that say what it was computed by.
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
        return self.ranking.groups[0]

    @cached_property
    def best(self) -> list[ScoredDocument]:
        """As many as wanted of those that a threshold lets through, most relevant first."""
        return best_first(self._through)[: self.request.result_limit() or None]

    @cached_property
    def _through(self) -> Sequence[ScoredDocument]:
        return above_threshold(self.scored, self.request, self.profile)

    @property
    def threshold(self) -> float | None:
        """What was compared with; None where nothing was."""
        return threshold_of(self.request, self.profile)

    @property
    def left_out(self) -> int | None:
        """Documents below the threshold; None where there is none."""
        return None if self.threshold is None else len(self.scored) - len(self._through)

    @cached_property
    def tokens(self) -> int:
        """Tokens of every pair, template included."""
        return sum(scored_document.tokens for scored_document in self.scored)

    @property
    def search_units(self) -> int:
        """Cohere's unit; see `billing.py`."""
        return sum(self.ranking.search_units)

    def number(self, scored_document: ScoredDocument) -> float:
        """The score as it goes on the wire, in [0, 1], or the logit when asked for."""
        return json_io.rounded(scored_document.logit if self._logits else scored_document.score)

    @cached_property
    def _logits(self) -> bool:
        return self.request.wants_logits()

    def text(self, scored_document: ScoredDocument) -> str:
        return self.texts[scored_document.index]

    def document(self, scored_document: ScoredDocument) -> dict[str, Any]:
        """The document as an object with `text`, other fields kept."""
        return self.request.echo(scored_document.index, self.text(scored_document))


class DocumentObject(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str


class ResultObject(BaseModel):
    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="In [0, 1], or a logit when asked for.")
    document: DocumentObject | None = Field(None, description="Absent when not wanted.")


class UsageObject(BaseModel):
    prompt_tokens: int = Field(description="Tokens of every pair, template included.")
    total_tokens: int


def usage(reply: Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.tokens, "total_tokens": reply.tokens}


def results(reply: Reply) -> list[dict[str, Any]]:
    """Best first; `document` is an object or absent, never null."""
    found = []
    echoes = reply.request.wants_documents()
    for scored_document in reply.best:
        result: dict[str, Any] = {
            "index": scored_document.index,
            "relevance_score": reply.number(scored_document),
        }
        if echoes:
            result["document"] = reply.document(scored_document)
        found.append(result)
    return found
