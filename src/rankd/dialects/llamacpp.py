"""llama.cpp's rerank API, under the prefix `/llamacpp`: Jina's body, or TEI's if it has `texts`.

Source: ggml-org/llama.cpp, tools/server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects import tei
from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import Failure, openai_error
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import DocumentsBody, SentFields, example
from rankd.errors import RankError
from rankd.ranking.service import ServiceDep


class LlamaCppRequest(DocumentsBody):
    model_config = example(
        {
            "model": "some-model",
            "query": "What is panda?",
            "documents": ["hi", "it is a bear", "The giant panda is a bear of China."],
            "top_n": 3,
        }
    )

    return_documents: bool | None = Field(None, description="Accepted without effect.")

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.return_documents = False
        return sent


class LlamaCppResult(BaseModel):
    index: int
    relevance_score: float


class LlamaCppResponse(BaseModel):
    model: str
    object: str
    usage: UsageObject
    results: list[LlamaCppResult] = Field(description="Most relevant first.")


class LlamaCppError(BaseModel):
    code: int
    message: str
    type: str


class LlamaCppFailure(Failure):
    error: LlamaCppError
    message: str
    detail: str


router = prefix_router("llamacpp")


class LlamaCpp(Dialect):
    name = "llamacpp"
    about = "llama.cpp's rerank API."
    prefix_router = router
    Request = LlamaCppRequest
    response = LlamaCppResponse
    failure = LlamaCppFailure

    def of(self, body: Mapping[str, Any]) -> Dialect:
        return tei.dialect if "texts" in body else self

    def variants(self) -> tuple[Dialect, ...]:
        return (self, tei.dialect)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "model": reply.model,
            "object": "list",
            "usage": usage(reply),
            "results": [
                {"index": result.index, "relevance_score": result.number} for result in reply.best
            ],
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        error = {"code": problem.status, "message": problem.message, "type": problem.kind}
        return openai_error(problem) | {"error": error}


class LlamaCppModel(BaseModel):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "llamacpp"
    meta: dict[str, int] = Field(
        description="`n_ctx_train`: maximum tokens of one pair, template included."
    )


class LlamaCppModels(BaseModel):
    object: str = "list"
    data: list[LlamaCppModel]


@router.get("/v1/models", name="llamacpp_models")
@router.get("/models", include_in_schema=False)
async def models(service: ServiceDep) -> LlamaCppModels:
    """The served model under each of its names, as llama.cpp lists its models."""
    meta = {"n_ctx_train": service.ranker.engine.info.max_tokens}
    return LlamaCppModels(
        data=[LlamaCppModel(id=name, created=service.created, meta=meta) for name in service.names]
    )


@router.get("/health", name="llamacpp_health")
@router.get("/v1/health", include_in_schema=False)
async def health(service: ServiceDep) -> dict[str, str]:
    """Readiness: `{"status": "ok"}` if documents can be scored, else 503."""
    await service.check()
    return {"status": "ok"}


dialect = LlamaCpp()
