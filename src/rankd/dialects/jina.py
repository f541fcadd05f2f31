"""Jina's reranker API, under the prefix `/jina`; without it `openai.py` answers the same bodies.

Source: api.jina.ai's OpenAPI description.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.fields import Count, Truncating
from rankd.dialects.reply import Reply, ResultObject, UsageObject, results, usage
from rankd.dialects.request import EchoingDocumentsBody, SentFields, example
from rankd.types import TruncationPolicy


class JinaRequest(EchoingDocumentsBody):
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
        None, ge=1, description="Maximum tokens per document. Default: all that fit."
    )
    truncation: Truncating | None = Field(
        None,
        description="If a document does not fit: `cut` it (true), `refuse` (false) or `chunk` it. "
        "Default: the server's --truncation (true).",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.truncation = TruncationPolicy(self.max_doc_length, self.truncation)
        return sent


class JinaResponse(BaseModel):
    model: str
    object: str
    usage: UsageObject
    results: list[ResultObject] = Field(description="Most relevant first.")


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
