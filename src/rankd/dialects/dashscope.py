"""DashScope's text rerank API (hosted qwen3-rerank): the native and the compatible path.

Source: help.aliyun.com, text rerank API; dashscope 2.0, rerank/text_rerank.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import Count, Documents, Number, Query, texts_of
from rankd.dialects.reply import Reply, ResultObject, results
from rankd.dialects.request import (
    EchoingDocumentsBody,
    RequestBody,
    SentFields,
    Spellings,
    example,
)
from rankd.errors import RankError


class Input(BaseModel):
    model_config = ConfigDict(extra="allow")

    query: Query = Field(description="The search query.")
    documents: Documents = Field(description="Documents to rank.")


class Parameters(BaseModel):
    model_config = ConfigDict(extra="allow")

    top_n: Count | None = Field(None, ge=0, description="Maximum number of results. Default: all.")
    return_documents: bool | None = Field(
        None, description="Include each document in its result. Default: false."
    )
    instruct: str | None = Field(None, description="Another name of `instruction`.")
    # DashScope's SDK sends additional keyword arguments as parameters.
    preset: str | None = Field(None, description="Another name of `preset` in the body.")
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Another name of `score_threshold` in the body.",
    )


class NativeRequest(RequestBody):
    model_config = example(
        {
            "model": "qwen3-rerank",
            "input": {
                "query": "什么是文本排序模型",
                "documents": [
                    "文本排序模型广泛用于搜索引擎和推荐系统中",
                    "量子计算是计算科学的一个前沿领域",
                ],
            },
            "parameters": {"return_documents": True, "top_n": 2},
        }
    )

    sent_names: ClassVar = {"query": "input.query", "documents": "input.documents"}

    input: Input = Field(description="The query and its documents.")
    parameters: Parameters | None = Field(
        None, description="Ranking options. Default: each option's own default."
    )

    def sent(self) -> SentFields:
        nested = self.parameters or Parameters()
        return SentFields(
            queries=[(self.input.query, texts_of(self.input.documents, "input.documents"))],
            instructions={"parameters.instruct": nested.instruct},
            preset=Spellings({"preset": self.preset, "parameters.preset": nested.preset}),
            threshold=Spellings(
                {
                    "score_threshold": self.score_threshold,
                    "parameters.score_threshold": nested.score_threshold,
                }
            ),
            top_n=nested.top_n,
            return_documents=bool(nested.return_documents),
            documents=self.input.documents,
        )


class TotalTokens(BaseModel):
    total_tokens: int = Field(description="Tokens of all pairs, template included.")


class Output(BaseModel):
    results: list[ResultObject] = Field(description="Most relevant first.")


class NativeResponse(BaseModel):
    output: Output
    usage: TotalTokens
    request_id: str


class NativeFailure(Failure):
    """DashScope's `code`, `message` and `request_id`, plus the error fields of other SDKs."""

    code: str
    message: str
    request_id: str
    detail: str
    error: ErrorObject


# DashScope's error codes by HTTP status; `InternalError` for every other status.
_CODES = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    404: "ModelNotFound",
    405: "MethodNotAllowed",
    413: "InvalidParameter",
    415: "InvalidParameter",
    429: "Throttling.RateQuota",
    503: "ServiceUnavailable",
    504: "RequestTimeOut",
}


class Native(Dialect):
    name = "dashscope"
    about = "DashScope's text rerank API."
    Request = NativeRequest
    response = NativeResponse
    failure = NativeFailure
    detection_rank = 10
    matchers = (BodyMatcher.on(input="object"),)
    paths = ("/api/v1/services/rerank/text-rerank/text-rerank",)

    def of(self, body: Mapping[str, Any]) -> Dialect:
        return self if "input" in body else compatible

    def variants(self) -> tuple[Dialect, ...]:
        return (self, compatible)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "output": {"results": results(reply)},
            "usage": {"total_tokens": reply.tokens},
            "request_id": reply.id,
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return {
            "code": _CODES.get(problem.status, "InternalError"),
            "request_id": str(uuid.uuid4()),
            **openai_error(problem),
        }


class CompatibleRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "model": "qwen3-rerank",
            "query": "什么是文本排序模型",
            "documents": [
                "文本排序模型广泛用于搜索引擎和推荐系统中",
                "量子计算是计算科学的一个前沿领域",
            ],
            "top_n": 2,
            "instruct": "Given a web search query, retrieve relevant passages.",
        }
    )


class CompatibleResponse(BaseModel):
    id: str
    object: str
    model: str
    results: list[ResultObject] = Field(description="Most relevant first.")
    usage: TotalTokens


class Compatible(Dialect):
    name = "dashscope"
    about = "DashScope's text rerank API, compatible path."
    Request = CompatibleRequest
    response = CompatibleResponse
    paths = ("/compatible-api/v1/reranks",)
    mounted = ()

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": reply.id,
            "object": "list",
            "model": reply.model,
            "results": results(reply),
            "usage": {"total_tokens": reply.tokens},
        }


native = Native()
compatible = Compatible()
