"""ZeroEntropy's rerank API.

Source: zeroentropy 0.1.0a11, types/model_rerank_*.py; docs.zeroentropy.dev, models/rerank.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.reply import Reply
from rankd.dialects.request import DocumentsBody, SentFields, example

# Of `slow` requests that do not say: the last of those that a client waits for.
_SLOW_PRIORITY = 999


class ZeroEntropyRequest(DocumentsBody):
    model_config = example(
        {
            "model": "zerank-2",
            "query": "Which planet has the most moons?",
            "documents": [
                "Saturn has more moons than any other planet.",
                "Comets have tails of dust and gas.",
            ],
            "top_n": 1,
            "latency": "fast",
        }
    )

    latency: Literal["fast", "slow"] | None = Field(
        None,
        description="slow: the request waits behind all others (priority 999), unless `priority` "
        "is sent. Default: fast.",
    )
    return_documents: bool | None = Field(None, description="Accepted without effect.")

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.return_documents = False
        if self.latency == "slow":
            sent.priority = _SLOW_PRIORITY
        return sent


class ZeroEntropyResult(BaseModel):
    index: int
    relevance_score: float


class ZeroEntropyResponse(BaseModel):
    results: list[ZeroEntropyResult] = Field(description="Most relevant first.")
    total_bytes: int = Field(
        description="150 per document, and the bytes of the document and of the query in UTF-8."
    )
    total_tokens: int = Field(description="Tokens of all pairs, template included.")
    actual_latency_mode: Literal["fast", "slow"]
    e2e_latency: float = Field(description="Seconds from the request to the answer.")
    inference_latency: float = Field(description="Seconds of scoring.")


_BYTES_PER_DOCUMENT = 150


class ZeroEntropy(Dialect):
    """The variant `slow` answers requests with that latency."""

    name = "zeroentropy"
    about = "ZeroEntropy's rerank API."
    Request = ZeroEntropyRequest
    response = ZeroEntropyResponse
    paths = ("/v1/models/rerank", "/models/rerank")
    latency: ClassVar[Literal["fast", "slow"]] = "fast"

    def of(self, body: Mapping[str, Any]) -> Dialect:
        return slow if body.get("latency") == "slow" else self

    def render(self, reply: Reply) -> dict[str, Any]:
        ranked = reply.request.rank
        query_bytes = _BYTES_PER_DOCUMENT + _bytes_of(ranked.query)
        return {
            "results": [
                {"index": result.index, "relevance_score": result.number} for result in reply.best
            ],
            "total_bytes": sum([query_bytes + _bytes_of(text) for text in ranked.documents]),
            "total_tokens": reply.tokens,
            "actual_latency_mode": self.latency,
            "e2e_latency": time.perf_counter() - reply.timings.stages[0].began,
            "inference_latency": reply.ranking.scoring,
        }


class _SlowZeroEntropy(ZeroEntropy):
    latency = "slow"


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


dialect = ZeroEntropy()
slow = _SlowZeroEntropy()
