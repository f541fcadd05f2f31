"""Weaviate's reranker container (`reranker-transformers`): scores in request order.

Source: weaviate/reranker-transformers, app.py; weaviate, modules/reranker-transformers.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.fields import Documents, Number, Query, texts_of
from rankd.dialects.missing_fields import unknown_fields_hint
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, SentFields, example
from rankd.errors import InvalidRequest, RankError
from rankd.ranking.service import ServiceDep


class WeaviateRequest(RequestBody):
    model_config = example(
        {
            "query": "Where do I work?",
            "documents": ["I work at Weaviate.", "The sky is blue."],
            "property": "",
        }
    )

    query: Query = Field(description="The search query.")
    documents: Documents | None = Field(
        None, description="Documents to score. Default: the one text in `property`."
    )
    property: str | None = Field(
        None, description="The one text to score if `documents` is absent."
    )
    partial: bool | None = Field(
        None, description="Accepted without effect: scores have no index, so all are returned."
    )
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Accepted without effect: every document is returned.",
    )

    accepts_partial: ClassVar[bool] = False
    applies_threshold: ClassVar[bool] = False

    def sent(self) -> SentFields:
        return SentFields(
            queries=[(self.query, self._texts())],
            # Without `documents`, the answer has the one text in `property`.
            return_documents=self.documents is not None,
        )

    def _texts(self) -> tuple[str, ...]:
        if self.documents is not None:
            return texts_of(self.documents, "documents")
        if self.property is None:
            hint = unknown_fields_hint(type(self), ("documents",), self.model_extra)
            raise InvalidRequest(f"documents is missing{hint}", param="documents")
        return (self.property,)


class WeaviateScore(BaseModel):
    document: str
    score: float


class WeaviateResponse(BaseModel):
    query: str
    scores: list[WeaviateScore] | None = Field(
        description="In the order of the request; null if `property` was scored."
    )
    property: str | None
    score: float | None = Field(description="Score of `property`; null if documents were scored.")


router = APIRouter(tags=["weaviate"])


class Weaviate(Dialect):
    name = "weaviate"
    about = "Weaviate's reranker container."
    get_router = router
    Request = WeaviateRequest
    response = WeaviateResponse
    failure = StringFailure
    detection_rank = 50
    matchers = (
        BodyMatcher.on(documents="any", property="present"),
        BodyMatcher.on(query="any", property="any"),
    )

    def render(self, reply: Reply) -> dict[str, Any]:
        request = reply.request.rank
        scored = zip(request.documents, reply.numbers, strict=True)
        # The container sends null fields as well.
        answer: dict[str, Any] = {
            "query": request.query,
            "scores": None,
            "property": None,
            "score": None,
        }
        if not reply.answer.return_documents:
            [(text, number)] = scored
            return answer | {"property": text, "score": number}
        return answer | {"scores": [{"document": text, "score": number} for text, number in scored]}

    def error(self, problem: RankError) -> dict[str, Any]:
        return string_error(problem, problem.kind)


@router.get("/.well-known/live", status_code=204, response_class=Response)
async def live() -> None:
    """Liveness probe: the process answers."""


@router.get("/.well-known/ready", status_code=204, response_class=Response)
async def ready(service: ServiceDep) -> None:
    """Readiness probe: 204 if documents can be scored, else 503. Weaviate waits for it at start."""
    await service.check()


@router.get("/meta")
async def meta(service: ServiceDep) -> dict[str, Any]:
    """The served model, for Weaviate's module metadata."""
    info = service.ranker.engine.info
    return {"model": service.name, "revision": info.revision, "max_tokens": info.max_tokens}


dialect = Weaviate()
