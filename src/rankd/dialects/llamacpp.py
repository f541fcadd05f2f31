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
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import DocumentsBody, SentFields, example
from rankd.errors import RankError


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


class LlamaCpp(Dialect):
    name = "llamacpp"
    about = "llama.cpp's rerank API."
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


dialect = LlamaCpp()
