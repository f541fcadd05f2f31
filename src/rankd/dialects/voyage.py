"""Voyage's rerank API: `top_k`, `truncation`, and `data[]` with documents as strings.

A body without `top_k` and `truncation` looks like Cohere's and needs the prefix `/voyage`.
Source: docs.voyageai.com, reranker API; voyageai 0.5.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.fields import Count, Truncating
from rankd.dialects.infinity import string_results
from rankd.dialects.reply import Reply
from rankd.dialects.request import DocumentsBody, SentFields, Spellings, example
from rankd.errors import RankError
from rankd.types import TruncationPolicy


class VoyageRequest(DocumentsBody):
    model_config = example(
        {
            "query": "Sample query",
            "documents": ["Sample document 1", "Sample document 2"],
            "model": "rerank-2.5",
            "top_k": 2,
        }
    )

    top_k: Count | None = Field(
        None, ge=0, description="Maximum number of results; 0 returns all. Default: all."
    )
    top_n: Count | None = Field(None, ge=0, description="Another name of `top_k`.")
    return_documents: bool | None = Field(
        None,
        description="Include each document in its result. Default: false; true if the body has "
        "neither `top_k` nor `truncation`.",
    )
    truncation: Truncating | None = Field(
        None,
        description="If a document does not fit: `cut` it (true), `refuse` (false) or `chunk` it. "
        "Default: the server's --truncation (true).",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.top_n = Spellings(top_k=self.top_k, top_n=self.top_n)
        if self.return_documents is None:
            # Continue sends Cohere's body to Voyage's path and requires documents in the answer.
            sent.return_documents = not self.model_fields_set & {"top_k", "truncation"}
        sent.truncation = TruncationPolicy(truncation=self.truncation)
        return sent


class VoyageResult(BaseModel):
    relevance_score: float
    index: int
    document: str | None = Field(None, description="Absent unless requested.")


class VoyageUsage(BaseModel):
    total_tokens: int = Field(description="Tokens of all pairs, template included.")


class VoyageResponse(BaseModel):
    object: str
    data: list[VoyageResult] = Field(description="Most relevant first.")
    model: str
    usage: VoyageUsage


class Voyage(Dialect):
    name = "voyage"
    about = "Voyage's rerank API."
    Request = VoyageRequest
    response = VoyageResponse
    failure = StringFailure
    detection_rank = 60
    # Clients of Voyage and Weaviate need a string; all others can read one.
    renders_unidentified_401 = True
    matchers = (
        BodyMatcher.on(documents="any", top_k="present"),
        BodyMatcher.on(documents="any", truncation="boolean"),
    )

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "object": "list",
            "data": string_results(reply),
            "model": reply.model,
            "usage": {"total_tokens": reply.tokens},
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return string_error(problem, problem.kind)


dialect = Voyage()
