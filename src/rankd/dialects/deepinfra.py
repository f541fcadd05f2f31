"""DeepInfra's inference API for rerankers: one score per document, in the order of the request.

LiteLLM's provider `deepinfra/` repeats the query for each document; others send it once.
Source: docs.deepinfra.com, rerankers; deepinfra.com/Qwen/Qwen3-Reranker-8B/api; LiteLLM 1.106.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import DocumentList, Number, Side, query_of, text_at, texts_of
from rankd.dialects.missing_fields import unknown_fields_hint
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, SentFields, example
from rankd.errors import InvalidRequest, RankError


class DeepInfraRequest(RequestBody):
    model_config = example(
        {
            "queries": ["How do plants make sugar?"],
            "documents": [
                "Plants make sugar from light, water and carbon dioxide.",
                "Granite is an igneous rock.",
            ],
        }
    )

    queries: Side | None = Field(
        None, description="One query, or one per document; absent if `query` is used."
    )
    query: Side | None = Field(
        None, description="Another name of `queries`, which its cross-encoders have. Default: none."
    )
    documents: DocumentList = Field(description="Texts to score.")
    service_tier: str | None = Field(
        None, description="Accepted without effect: `priority` decides who is first."
    )
    webhook: str | None = Field(
        None,
        description="Refused (400): the server opens no URL of a request. Default: none.",
    )
    partial: bool | None = Field(
        None, description="Accepted without effect: scores have no index, so all are returned."
    )
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Accepted without effect: every score is returned.",
    )

    accepts_partial: ClassVar[bool] = False
    applies_threshold: ClassVar[bool] = False

    def sent(self) -> SentFields:
        """Each run of documents that have the same query is ranked as one request."""
        if self.webhook:
            raise InvalidRequest(
                "webhook is not supported: this server opens no URL that a request names; "
                "leave it out and read the answer",
                param="webhook",
            )
        documents = texts_of(self.documents, "documents")
        name = self._name_of_queries()
        pairs = zip(self._queries(name, len(documents)), documents, strict=True)
        return SentFields(
            names={"query": name},
            queries=[
                (query, tuple([document for _, document in run]))
                for query, run in groupby(pairs, key=itemgetter(0))
            ],
        )

    def _queries(self, name: str, count: int) -> Sequence[str]:
        """One query for each of `count` documents, from the field that has them."""
        value = getattr(self, name)
        if not isinstance(value, list):
            return [text_at(value, name, query_of)] * count
        queries = [
            text_at(query, f"{name}[{index}]", query_of) for index, query in enumerate(value)
        ]
        if len(queries) not in (1, count):
            raise InvalidRequest(
                f"{name} has {len(queries)} texts and documents {count}; "
                "send one query, or one per document",
                param=name,
            )
        return queries if len(queries) == count else queries * count

    def _name_of_queries(self) -> str:
        """The field that has the queries."""
        names = [name for name in ("queries", "query") if getattr(self, name) is not None]
        if not names:
            hint = unknown_fields_hint(type(self), ("queries",), self.model_extra)
            raise InvalidRequest(f"queries is missing{hint}", param="queries")
        if len(names) > 1:
            raise InvalidRequest("send queries or query, not both", param="query")
        return names[0]


class InferenceStatus(BaseModel):
    status: str
    runtime_ms: int
    cost: float
    tokens_generated: int
    tokens_input: int
    output_length: int


class DeepInfraResponse(BaseModel):
    scores: list[float] = Field(description="In the order of the documents.")
    input_tokens: int = Field(description="Tokens of all pairs, template included.")
    request_id: str
    inference_status: InferenceStatus


class DeepInfraDetail(BaseModel):
    error: str


class DeepInfraFailure(Failure):
    detail: DeepInfraDetail
    message: str
    error: ErrorObject


class DeepInfra(Dialect):
    name = "deepinfra"
    about = "DeepInfra's inference API for rerankers."
    Request = DeepInfraRequest
    response = DeepInfraResponse
    failure = DeepInfraFailure
    paths = ("/v1/inference/{model:path}", "/inference/{model:path}")

    def render(self, reply: Reply) -> dict[str, Any]:
        seconds = reply.ranking.encoding + reply.ranking.scoring
        return {
            "scores": reply.numbers,
            "input_tokens": reply.tokens,
            "request_id": reply.id,
            "inference_status": {
                "status": "succeeded",
                "runtime_ms": round(seconds * 1000),
                "cost": 0.0,
                "tokens_generated": 0,
                "tokens_input": reply.tokens,
                "output_length": 0,
            },
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return openai_error(problem) | {"detail": {"error": problem.message}}


dialect = DeepInfra()
