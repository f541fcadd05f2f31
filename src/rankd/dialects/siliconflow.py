"""SiliconFlow's rerank API, under the prefix `/siliconflow`.

Without the prefix `openai.py` answers the same bodies.
Source: api-docs.siliconflow.cn, create-rerank.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import Count
from rankd.dialects.openai import Meta, Tokens, meta
from rankd.dialects.reply import Reply, ResultObject, results
from rankd.dialects.request import DocumentsBody, SentFields, example
from rankd.errors import RankError
from rankd.types import TruncationPolicy


class SiliconFlowRequest(DocumentsBody):
    model_config = example(
        {
            "model": "Qwen/Qwen3-Reranker-8B",
            "query": "Apple",
            "documents": ["apple", "banana", "fruit", "vegetable"],
            "instruction": "Please rerank the documents based on the query.",
            "top_n": 4,
            "return_documents": True,
            "max_chunks_per_doc": 123,
            "overlap_tokens": 79,
        }
    )

    max_chunks_per_doc: Count | None = Field(
        None, ge=1, description="Maximum chunks per long document. Default: 1024."
    )
    overlap_tokens: Count | None = Field(
        None,
        ge=0,
        description="Tokens shared by neighbouring chunks. Default: 0.",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.truncation = TruncationPolicy(
            chunks=self.max_chunks_per_doc or 1024, overlap=self.overlap_tokens
        )
        return sent


class SiliconFlowResponse(BaseModel):
    id: str
    results: list[ResultObject] = Field(description="Most relevant first.")
    tokens: Tokens
    meta: Meta


class SiliconFlowFailure(Failure):
    """SiliconFlow's `code`, `message` and `data`, plus the error fields that other SDKs read."""

    code: int
    message: str
    data: None
    detail: str
    error: ErrorObject


# SiliconFlow's error codes by HTTP status; 50000 and above are errors of the server.
_CODES = {
    400: 20015,
    401: 20001,
    404: 20012,
    405: 20015,
    413: 20015,
    415: 20015,
    429: 50603,
    503: 50505,
    504: 50504,
}


class SiliconFlow(Dialect):
    name = "siliconflow"
    about = "SiliconFlow's rerank API."
    Request = SiliconFlowRequest
    response = SiliconFlowResponse
    failure = SiliconFlowFailure

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": reply.id,
            "results": results(reply),
            "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
            "meta": meta(reply, "1"),
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return {
            "code": _CODES.get(problem.status, 50000),
            "data": None,
            **openai_error(problem),
        }


dialect = SiliconFlow()
