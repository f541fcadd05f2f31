"""SGLang's rerank API, under the prefix `/sglang`: the answer is a bare array.

Without the prefix its body looks the same as Cohere's.
Source: SGLang 0.5.23, srt/entrypoints/openai/protocol.py and serving_rerank.py.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import Count
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.reply import Reply
from rankd.dialects.request import EchoingDocumentsBody, example
from rankd.errors import RankError
from rankd.ranking.service import ModelService, ServiceDep


class SGLangRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "query": "What is the capital of France?",
            "documents": ["Paris is the capital of France.", "Bread is made of flour."],
            "instruct": "Find the passage that answers the question.",
            "top_n": 1,
        }
    )

    top_n: Count | None = Field(None, ge=1, description="Maximum number of results. Default: all.")


class MetaInfo(BaseModel):
    id: str
    prompt_tokens: int = Field(description="Tokens of this pair, template included.")


class SGLangResult(BaseModel):
    score: float
    document: str | None = Field(None, description="Absent unless requested.")
    index: int
    meta_info: MetaInfo


class SGLangFailure(Failure):
    object: str
    message: str
    type: str
    param: str | None
    code: int
    detail: str
    error: ErrorObject


# SGLang's error `type` by HTTP status, where it differs from OpenAI's.
_TYPES = {400: "BadRequestError", 500: "InternalServerError"}

router = prefix_router("sglang")


class SGLang(Dialect):
    name = "sglang"
    about = "SGLang's rerank API: the answer is a bare array."
    prefix_router = router
    Request = SGLangRequest
    response = list[SGLangResult]
    failure = SGLangFailure

    def render(self, reply: Reply) -> list[dict[str, Any]]:
        with_documents = reply.answer.return_documents
        return [
            {
                "score": result.number,
                **({"document": result.text} if with_documents else {}),
                "index": result.index,
                "meta_info": {"id": reply.id, "prompt_tokens": result.scored.tokens},
            }
            for result in reply.best
        ]

    def error(self, problem: RankError) -> dict[str, Any]:
        return {
            "object": "error",
            "type": _TYPES.get(problem.status, problem.kind),
            "param": problem.param,
            "code": problem.status,
            **openai_error(problem),
        }


class SGLangModel(BaseModel):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "sglang"
    root: str
    parent: None = None
    max_model_len: int = Field(description="Maximum tokens of one pair, template included.")


class SGLangModels(BaseModel):
    object: str = "list"
    data: list[SGLangModel]


@router.get("/v1/models", name="sglang_models")
@router.get("/models", include_in_schema=False)
async def models(service: ServiceDep) -> SGLangModels:
    """The served model under each of its names, as SGLang lists its models."""
    return SGLangModels(data=[_model(service, name) for name in service.names])


@router.get("/v1/models/{model:path}", name="sglang_model")
@router.get("/models/{model:path}", include_in_schema=False)
async def model(model: str, service: ServiceDep) -> SGLangModel:
    """The served model, by any name that requests may use."""
    service.accept_model(model)
    return _model(service, model)


def _model(service: ModelService, name: str) -> SGLangModel:
    tokens = service.ranker.engine.info.max_tokens
    return SGLangModel(id=name, root=name, created=service.created, max_model_len=tokens)


dialect = SGLang()
