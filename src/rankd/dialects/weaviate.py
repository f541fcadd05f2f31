"""Weaviate's reranker container (`reranker-transformers`): scores in the order of the request.

Source: weaviate/reranker-transformers, app.py; weaviate, modules/reranker-transformers.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.fields import Documents, Number, Query, texts_of
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, example
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

    query: Query = Field(description="The question.")
    documents: Documents | None = Field(None, description="What to judge; `property` when absent.")
    property: str | None = Field(
        None, description="The one text to judge when `documents` are absent."
    )
    partial: bool | None = Field(
        None, description="Accepted, without effect: scores have no index, so none can be missing."
    )

    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Accepted, without effect: every document has its place in the answer.",
    )

    def accepts_partial(self) -> bool:
        return False

    def applies_threshold(self) -> bool:
        return False

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        if self.documents is not None:
            return texts_of(self.documents, "documents")
        if self.property is None:
            raise InvalidRequest("documents is missing", param="documents")
        return (self.property,)


class WeaviateScore(BaseModel):
    document: str
    score: float


class WeaviateResponse(BaseModel):
    query: str
    scores: list[WeaviateScore] | None = Field(
        description="In the order of the request; null when `property` was judged."
    )
    property: str | None
    score: float | None = Field(description="Of `property`; null when documents were judged.")


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
        request = reply.request
        assert isinstance(request, WeaviateRequest)
        # The container sends the nulls, too.
        answer: dict[str, Any] = {
            "query": request.query,
            "scores": None,
            "property": None,
            "score": None,
        }
        if request.documents is None:
            [result] = reply.scored
            return answer | {"property": request.property, "score": reply.number(result)}
        return answer | {
            "scores": [
                {"document": reply.text(result), "score": reply.number(result)}
                for result in reply.scored
            ]
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return string_error(problem, problem.kind)


@router.get("/.well-known/live", status_code=204, response_class=Response)
async def live() -> None:
    """The process answers."""


@router.get("/.well-known/ready", status_code=204, response_class=Response)
async def ready(service: ServiceDep) -> None:
    """Scores can be had; else 503. Weaviate does not start without it."""
    await service.check()


@router.get("/meta")
async def meta(service: ServiceDep) -> dict[str, Any]:
    """What Weaviate notes of the model."""
    info = service.ranker.engine.info
    return {"model": service.name, "revision": info.revision, "max_tokens": info.max_tokens}


dialect = Weaviate()
