"""Infinity's rerank API, under the prefix `/infinity`: results hold documents as strings.

Source: michaelfeil/infinity 0.0.77, fastapi_schemas/pymodels.py.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import DocumentsBody, SentFields, example


class InfinityRequest(DocumentsBody):
    model_config = example(
        {
            "model": "default/not-specified",
            "query": "Where is Munich?",
            "documents": ["Munich is in Germany.", "The sky is blue."],
            "return_documents": False,
            "raw_scores": False,
        }
    )

    raw_scores: bool | None = Field(
        None, description="true: return raw logits, in nats. Default: false."
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.logits = self.raw_scores
        return sent


class InfinityResult(BaseModel):
    relevance_score: float
    index: int
    document: str | None = Field(None, description="Absent unless requested.")


class InfinityResponse(BaseModel):
    object: str
    results: list[InfinityResult] = Field(description="Most relevant first.")
    model: str
    usage: UsageObject
    id: str
    created: int


class Infinity(Dialect):
    name = "infinity"
    about = "Infinity's rerank API."
    Request = InfinityRequest
    response = InfinityResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "object": "rerank",
            "results": string_results(reply),
            "model": reply.model,
            "usage": usage(reply),
            "id": f"infinity-{reply.id}",
            "created": int(time.time()),
        }


def string_results(reply: Reply) -> list[dict[str, Any]]:
    """Results, best first; `document` is a string, or absent if not requested."""
    with_documents = reply.answer.return_documents
    return [
        {"relevance_score": result.number, "index": result.index}
        | ({"document": result.text} if with_documents else {})
        for result in reply.best
    ]


dialect = Infinity()
