"""Pinecone's rerank, under `/pinecone`: documents are objects, and come back as they were.

Only under its prefix: at the root its body cannot be told from Cohere's.
Source: pinecone-io/pinecone-api, inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import Failure, openai_error
from rankd.dialects.reply import Reply
from rankd.dialects.request import EchoingDocumentsBody, example
from rankd.errors import InvalidRequest, RankError
from rankd.types import ScoredDocument, TruncationPolicy


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
        None, description="Fields of the documents that are read; `text` when absent."
    )
    parameters: dict[str, Any] | None = Field(
        None, description="`truncate`: END (when absent) cuts long documents, NONE refuses them."
    )

    def fields(self) -> Sequence[str]:
        return self.rank_fields or ()

    def echo(self, index: int, text: str) -> dict[str, Any]:
        document = self.documents[index]
        return document if isinstance(document, dict) else {"text": text}

    def has_field(self, *fields: str) -> bool:
        inside = (self.parameters or {}).get("truncate") is not None and "truncate" in fields
        return inside or super().has_field(*fields)

    def truncation_policy(self) -> TruncationPolicy:
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
    document: dict[str, Any] | None = Field(None, description="As sent; absent when not wanted.")


class PineconeUsage(BaseModel):
    rerank_units: int = Field(description="A query with up to 100 documents is one.")


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


_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


# Documents of one unit, however long: it bills by requests of up to so many.
_DOCUMENTS = 100


class Pinecone(Dialect):
    name = "pinecone"
    about = "Pinecone's rerank."
    Request = PineconeRequest
    response = PineconeResponse
    failure = PineconeFailure

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "model": reply.model,
            "data": [self._result(reply, scored_document) for scored_document in reply.best],
            "usage": {"rerank_units": -(-len(reply.scored) // _DOCUMENTS)},
        }

    def _result(self, reply: Reply, scored_document: ScoredDocument) -> dict[str, Any]:
        result: dict[str, Any] = {
            "index": scored_document.index,
            "score": reply.number(scored_document),
        }
        if reply.request.wants_documents():
            result["document"] = reply.document(scored_document)
        return result

    def error(self, problem: RankError) -> dict[str, Any]:
        code = _CODES.get(problem.status, "UNKNOWN")
        return {
            **openai_error(problem),
            "error": {"code": code, "message": problem.message},
            "status": problem.status,
        }


dialect = Pinecone()
