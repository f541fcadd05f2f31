"""Pinecone's rerank API, under the prefix `/pinecone`: documents are objects, returned as sent.

Without the prefix its body looks the same as Cohere's.
Source: pinecone-io/pinecone-api, inference.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import GRPC_CODES, Failure, openai_error
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.reply import AnswerResult, Reply
from rankd.dialects.request import EchoingDocumentsBody, SentFields, example
from rankd.errors import InvalidRequest, RankError
from rankd.ranking.service import ModelService, ServiceDep
from rankd.types import TruncationPolicy


class PineconeRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "model": "bge-reranker-v2-m3",
            "query": "What is the capital of France?",
            "documents": [
                {"id": "1", "text": "Paris is the capital of France."},
                {"id": "2", "text": "Bread is made of flour."},
            ],
            "top_n": 1,
            "return_documents": True,
            "parameters": {"truncate": "END"},
        }
    )

    rank_fields: list[str] | None = Field(
        None, description="Fields of the documents to rank by. Default: `text`."
    )
    parameters: dict[str, Any] | None = Field(
        None,
        description="`truncate`: END cuts long documents, NONE refuses them (400). Default: the "
        "server's --truncation (END).",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents(self.rank_fields)
        sent.truncation = self._truncation()
        return sent

    def has_field(self, *fields: str) -> bool:
        nested = (self.parameters or {}).get("truncate") is not None and "truncate" in fields
        return nested or super().has_field(*fields)

    def _truncation(self) -> TruncationPolicy:
        match (self.parameters or {}).get("truncate"):
            case None:
                return TruncationPolicy()
            case "END":
                return TruncationPolicy(truncation="cut", side="right")
            case "NONE":
                return TruncationPolicy(truncation="refuse")
        raise InvalidRequest(
            "parameters.truncate must be 'END' or 'NONE'", param="parameters.truncate"
        )


class PineconeResult(BaseModel):
    index: int
    score: float
    document: dict[str, Any] | None = Field(None, description="As sent; absent unless requested.")


class PineconeUsage(BaseModel):
    rerank_units: int = Field(description="One unit per 100 documents, rounded up.")


class PineconeResponse(BaseModel):
    model: str
    data: list[PineconeResult] = Field(description="Most relevant first.")
    usage: PineconeUsage


class PineconeError(BaseModel):
    code: str
    message: str


class PineconeFailure(Failure):
    error: PineconeError
    status: int
    message: str
    detail: str


# Pinecone bills one unit for up to 100 documents, whatever their length.
_DOCUMENTS_PER_UNIT = 100


router = prefix_router("pinecone")


class Pinecone(Dialect):
    name = "pinecone"
    about = "Pinecone's rerank API."
    prefix_router = router
    Request = PineconeRequest
    response = PineconeResponse
    failure = PineconeFailure

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "model": reply.model,
            "data": [self._result(reply, result) for result in reply.best],
            "usage": {"rerank_units": -(-len(reply.scored) // _DOCUMENTS_PER_UNIT)},
        }

    def _result(self, reply: Reply, result: AnswerResult) -> dict[str, Any]:
        item: dict[str, Any] = {"index": result.index, "score": result.number}
        if reply.answer.return_documents:
            document = reply.answer.documents[result.index]
            item["document"] = document if isinstance(document, dict) else {"text": result.text}
        return item

    def error(self, problem: RankError) -> dict[str, Any]:
        code = GRPC_CODES.get(problem.status, "UNKNOWN")
        return {
            **openai_error(problem),
            "error": {"code": code, "message": problem.message},
            "status": problem.status,
        }


class PineconeModel(BaseModel):
    model: str
    short_description: str
    type: str = "rerank"
    supported_parameters: list[dict[str, Any]]
    modality: str = "text"
    max_sequence_length: int = Field(description="Maximum tokens of one pair, template included.")
    max_batch_size: int = Field(description="Maximum documents per request.")
    provider_name: str = "rankd"


class PineconeModels(BaseModel):
    models: list[PineconeModel]


_TRUNCATE = {
    "parameter": "truncate",
    "type": "one_of",
    "value_type": "string",
    "required": False,
    "default": "END",
    "allowed_values": ["END", "NONE"],
}


@router.get("/models", name="pinecone_models")
async def models(service: ServiceDep) -> PineconeModels:
    """The served model under each of its names, as Pinecone lists its models."""
    return PineconeModels(models=[_model(service, name) for name in service.names])


@router.get("/models/{model:path}", name="pinecone_model")
async def model(model: str, service: ServiceDep) -> PineconeModel:
    """The served model, by any name that requests may use."""
    service.accept_model(model)
    return _model(service, model)


def _model(service: ModelService, name: str) -> PineconeModel:
    return PineconeModel(
        model=name,
        short_description=f"{service.name}, a reranking model",
        supported_parameters=[_TRUNCATE],
        max_sequence_length=service.ranker.engine.info.max_tokens,
        max_batch_size=service.ranker.max_documents,
    )


dialect = Pinecone()
