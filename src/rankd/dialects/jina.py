"""Jina's reranker API, under `/jina`; at the root `openai.py` answers its clients.

Source: api.jina.ai's OpenAPI description.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import (
    Dialect,
    Fit,
    Repeating,
    Reply,
    Result,
    Usage,
    example,
    results,
    usage,
)
from rankd.dialects.texts import Count


class JinaRequest(Repeating):
    model_config = example(
        {
            "model": "jina-reranker-v2-base-multilingual",
            "query": "Organic skincare products for sensitive skin",
            "documents": [
                "New makeup trends focus on bold colors.",
                "Organic skincare for sensitive skin with aloe vera and chamomile.",
            ],
            "top_n": 1,
        }
    )

    max_doc_length: Count | None = Field(
        None, ge=1, description="Tokens of a document that are read; all that fit when absent."
    )
    truncation: bool | None = Field(
        None, description="false: documents that do not fit are refused; true when absent."
    )

    def fit(self) -> Fit:
        return Fit(self.max_doc_length, "refuse" if self.truncation is False else "end")


class JinaResponse(BaseModel):
    model: str
    object: str
    usage: Usage
    results: list[Result] = Field(description="Most relevant first.")


class Jina(Dialect):
    name = "jina"
    about = "Jina's reranker API."
    Request = JinaRequest
    response = JinaResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "model": reply.model,
            "object": "list",
            "usage": usage(reply),
            "results": results(reply),
        }


dialect = Jina()
