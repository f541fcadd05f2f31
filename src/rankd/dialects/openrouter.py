"""OpenRouter's rerank API; a body with `provider` preferences is in it.

Without them its body looks the same as Cohere's, and the answer of `openai.py` has its fields.
Source: openrouter 1.3, operations/creatererank.py.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import Failure, openai_error
from rankd.dialects.fields import Count
from rankd.dialects.reply import Reply, ResultObject, results
from rankd.dialects.request import EchoingDocumentsBody, example
from rankd.errors import RankError


class OpenRouterRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "model": "qwen/qwen3-reranker-0.6b",
            "query": "Where do penguins live?",
            "documents": [
                {"text": "Penguins live in the southern hemisphere."},
                "Violins have four strings.",
            ],
            "top_n": 1,
            "provider": {"allow_fallbacks": False},
        }
    )

    top_n: Count | None = Field(None, ge=1, description="Maximum number of results. Default: all.")
    provider: dict[str, Any] | None = Field(
        None, description="Accepted without effect: there is one provider."
    )
    session_id: str | None = Field(None, description="Accepted without effect.")
    trace: dict[str, Any] | None = Field(None, description="Accepted without effect.")


class OpenRouterUsage(BaseModel):
    search_units: int
    total_tokens: int = Field(description="Tokens of all pairs, template included.")


class OpenRouterResponse(BaseModel):
    id: str
    model: str
    results: list[ResultObject] = Field(description="Most relevant first.")
    usage: OpenRouterUsage


class OpenRouterError(BaseModel):
    code: int
    message: str


class OpenRouterFailure(Failure):
    error: OpenRouterError
    message: str
    detail: str


class OpenRouter(Dialect):
    name = "openrouter"
    about = "OpenRouter's rerank API."
    Request = OpenRouterRequest
    response = OpenRouterResponse
    failure = OpenRouterFailure
    detection_rank = 65
    matchers = (BodyMatcher.on(documents="any", provider="object"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": reply.id,
            "model": reply.model,
            "results": results(reply),
            "usage": {"search_units": reply.usage.search_units, "total_tokens": reply.tokens},
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        error = {"code": problem.status, "message": problem.message}
        return openai_error(problem) | {"error": error}


dialect = OpenRouter()
