"""Cohere's Rerank API, versions 1 and 2, under the prefix `/cohere`.

Without the prefix `openai.py` answers the same bodies; its answer is a superset of Cohere's.
Source: cohere-ai/cohere-developer-experience, cohere-openapi.yaml.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import Count, Documents, Query
from rankd.dialects.openai import Meta, meta
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.relevant_spans import (
    DESCRIPTION,
    RELEVANT_SPANS,
    CohereRelevantSpans,
    RelevantSpanObject,
    add_spans,
)
from rankd.dialects.reply import Reply, ResultObject, results
from rankd.dialects.request import COHERE_PATH, RERANK_PATHS, DocumentsBody, SentFields, example
from rankd.errors import RankError
from rankd.ranking.service import ModelService, ServiceDep
from rankd.types import TruncationPolicy


class V1Request(DocumentsBody):
    model_config = example(
        {
            "model": "rerank-english-v3.0",
            "query": "What is the capital of the United States?",
            "documents": [
                {"text": "Carson City is the capital city of Nevada.", "state": "Nevada"},
                {"text": "Washington, D.C. is the capital of the United States."},
            ],
            "return_documents": True,
            "rank_fields": ["text"],
            "max_chunks_per_doc": 10,
        }
    )

    top_n: Count | None = Field(None, ge=0, description="Maximum number of results. Default: all.")
    rank_fields: list[str] | None = Field(
        None, description="Fields of object documents to rank by. Default: `text`."
    )
    max_chunks_per_doc: Count | None = Field(
        None,
        ge=1,
        description="Maximum chunks per long document; the best chunk counts. Default: 10.",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents(self.rank_fields)
        sent.truncation = TruncationPolicy(chunks=self.max_chunks_per_doc or 10)
        return sent


class V2Request(DocumentsBody):
    model_config = example(
        {
            "model": "rerank-v4.0-pro",
            "query": "What is the capital of the United States?",
            "documents": [
                "Carson City is the capital city of Nevada.",
                "Washington, D.C. is the capital of the United States.",
            ],
            "top_n": 2,
            "max_tokens_per_doc": 4096,
        }
    )

    query: Query = Field(description="The search query.")
    documents: Documents = Field(description="Texts to rank; structured data as YAML strings.")
    return_documents: bool | None = Field(
        None,
        description="Include each document in its result; not in Cohere's version 2, but clients "
        "send it. Default: false.",
    )
    max_tokens_per_doc: Count | None = Field(
        None, ge=1, description="Maximum tokens per document; the end is cut off. Default: 4096."
    )

    relevant_spans: CohereRelevantSpans | None = Field(
        None, description=f"{DESCRIPTION} Default: disabled."
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.truncation = TruncationPolicy(tokens=self.max_tokens_per_doc or 4096)
        sent.spans = self.relevant_spans
        return sent


class CohereResult(ResultObject):
    relevant_spans: list[RelevantSpanObject] | None = Field(None, description=RELEVANT_SPANS)


class CohereResponse(BaseModel):
    id: str
    results: list[ResultObject] = Field(description="Most relevant first.")
    meta: Meta


class CohereV2Response(BaseModel):
    id: str
    results: list[CohereResult] = Field(description="Most relevant first.")
    meta: Meta


class CohereFailure(Failure):
    """Cohere's `id` and `message`, plus the error fields that other SDKs read."""

    id: str
    message: str
    detail: str
    error: ErrorObject


router = prefix_router("cohere")


class _Cohere(Dialect):
    name = "cohere"
    response: ClassVar[Any] = CohereResponse
    failure = CohereFailure
    version = "1"

    def render(self, reply: Reply) -> dict[str, Any]:
        found = results(reply)
        if reply.answer.relevant_spans:
            add_spans(found, reply.best)
        return {"id": reply.id, "results": found, "meta": meta(reply, self.version)}

    def error(self, problem: RankError) -> dict[str, Any]:
        return {"id": str(uuid.uuid4()), **openai_error(problem)}


class CohereV1(_Cohere):
    about = "Cohere's Rerank API, version 1."
    prefix_router = router
    Request = V1Request
    mounted = tuple(path for path in RERANK_PATHS if path != COHERE_PATH)


class CohereV2(_Cohere):
    about = "Cohere's Rerank API, version 2."
    Request = V2Request
    response = CohereV2Response
    mounted = (COHERE_PATH,)
    version = "2"


class CohereModel(BaseModel):
    name: str
    endpoints: list[str] = ["rerank"]
    default_endpoints: list[str] = []
    finetuned: bool = False
    is_deprecated: bool = False
    context_length: int = Field(description="Maximum tokens of one pair, template included.")
    tokenizer_url: None = None


class CohereModels(BaseModel):
    models: list[CohereModel]


@router.get("/v1/models", name="cohere_models")
async def models(service: ServiceDep) -> CohereModels:
    """The served model under each of its names, as Cohere lists its models."""
    return CohereModels(models=[_model(service, name) for name in service.names])


@router.get("/v1/models/{model:path}", name="cohere_model")
async def model(model: str, service: ServiceDep) -> CohereModel:
    """The served model, by any name that requests may use."""
    service.accept_model(model)
    return _model(service, model)


def _model(service: ModelService, name: str) -> CohereModel:
    return CohereModel(name=name, context_length=service.ranker.engine.info.max_tokens)


v1 = CohereV1()
v2 = CohereV2()
