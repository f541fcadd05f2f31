"""Infinity's rerank API, under the prefix `/infinity`: results hold documents as strings.

Source: michaelfeil/infinity 0.0.77, fastapi_schemas/pymodels.py and infinity_server.py.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.fields import Count
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import DocumentsBody, SentFields, example
from rankd.ranking.service import ServiceDep


class InfinityRequest(DocumentsBody):
    model_config = example(
        {
            "model": "default/not-specified",
            "query": "Where is Munich?",
            "documents": ["Munich is in Germany.", "The sky is blue."],
            "return_documents": False,
            "raw_scores": False,
        }
    )

    top_n: Count | None = Field(None, ge=1, description="Maximum number of results. Default: all.")
    raw_scores: bool | None = Field(
        None, description="true: return raw logits, in nats. Default: false."
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.logits = self.raw_scores
        return sent


class InfinityResult(BaseModel):
    relevance_score: float
    index: int
    document: str | None = Field(None, description="Absent unless requested.")


class InfinityResponse(BaseModel):
    object: str
    results: list[InfinityResult] = Field(description="Most relevant first.")
    model: str
    usage: UsageObject
    id: str
    created: int


router = prefix_router("infinity")


class Infinity(Dialect):
    name = "infinity"
    about = "Infinity's rerank API."
    prefix_router = router
    Request = InfinityRequest
    response = InfinityResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "object": "rerank",
            "results": string_results(reply),
            "model": reply.model,
            "usage": usage(reply),
            "id": f"infinity-{reply.id}",
            "created": int(time.time()),
        }


def string_results(reply: Reply) -> list[dict[str, Any]]:
    """Results, best first; `document` is a string, or absent if not requested."""
    with_documents = reply.answer.return_documents
    return [
        {"relevance_score": result.number, "index": result.index}
        | ({"document": result.text} if with_documents else {})
        for result in reply.best
    ]


class InfinityModel(BaseModel):
    id: str
    stats: dict[str, int] = Field(description="`batch_size`: maximum tokens of a batch.")
    object: Literal["model"] = "model"
    owned_by: Literal["infinity"] = "infinity"
    created: int
    backend: str
    capabilities: list[str] = ["rerank"]


class InfinityModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[InfinityModel]


@router.get("/models", name="infinity_models")
@router.get("/v1/models", include_in_schema=False)
async def models(service: ServiceDep) -> InfinityModels:
    """The served model under each of its names, as Infinity lists its models."""
    engine = service.ranker.engine.info
    return InfinityModels(
        data=[
            InfinityModel(
                id=name,
                stats={"batch_size": engine.batch_tokens},
                created=service.created,
                backend=engine.name,
            )
            for name in service.names
        ]
    )


@router.get("/health", name="infinity_health")
async def health(service: ServiceDep) -> dict[str, float]:
    """Readiness: `{"unix": time}` if documents can be scored, else 503."""
    await service.check()
    return {"unix": time.time()}


dialect = Infinity()
