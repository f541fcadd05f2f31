"""The two shapes that tutorials for Qwen3-Reranker publish, under `/simple` and `/plain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from pydantic import BaseModel, Field

from rankd.dialects import handler, json_io
from rankd.dialects.base import Dialect, ExtraRoute
from rankd.dialects.deadlines import deadline_of
from rankd.dialects.fields import (
    LIST,
    SAYING,
    TEXT,
    Count,
    Documents,
    Query,
    query_of,
    refuse_many_fields,
    texts_of,
)
from rankd.dialects.headers import below_header, usage_headers, warning_header
from rankd.dialects.infinity import string_results
from rankd.dialects.reply import Reply, above_threshold, shown_score, threshold_of
from rankd.dialects.request import EchoingDocumentsBody, RequestBody, example
from rankd.dialects.warnings import (
    profile_warnings,
    threshold_warnings,
    truncation_warnings,
    unknown_fields,
)
from rankd.errors import InvalidRequest
from rankd.ranking.service import service_of
from rankd.telemetry import metrics
from rankd.telemetry.timings import current
from rankd.types import RankRequest, ScoredDocument, best_first

_EXAMPLE: dict[str, Any] = {
    "query": "What is the capital of China?",
    "documents": ["Gravity attracts two bodies.", "The capital of China is Beijing."],
}


class SimpleRequest(RequestBody):
    model_config = example({**_EXAMPLE, "top_k": 1})

    query: Query = Field(description="The question.")
    documents: Documents = Field(description="What to judge.")
    top_k: Count | None = Field(
        None, ge=0, description="Documents in `ranked_documents`; all when absent."
    )
    partial: bool | None = Field(
        None, description="Accepted, without effect: scores have no index, so none can be missing."
    )

    def accepts_partial(self) -> bool:
        return False

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        return texts_of(self.documents, "documents")

    def result_limit(self) -> int | None:
        return self.top_k


class SimpleResponse(BaseModel):
    scores: list[float] = Field(description="In the order of the request.")
    ranked_documents: list[str] = Field(description="Most relevant first.")
    ranked_scores: list[float] = Field(description="Of the ranked documents.")


class Simple(Dialect):
    name = "simple"
    about = "Scores in the order of the request, and the documents in the order of relevance."
    Request = SimpleRequest
    response = SimpleResponse

    def extra_routes(self) -> tuple[ExtraRoute, ...]:
        return (
            ExtraRoute(
                ("/batch_rerank", "/v1/batch_rerank"),
                (self.name,),
                batch_rerank,
                "Several queries in one request, answered or refused together",
                (SimpleBatchRequest,),
                (SimpleBatchResponse,),
            ),
        )

    def render(self, reply: Reply) -> dict[str, Any]:
        return _ranked(reply.scored, reply.best, reply.texts)


def _ranked(
    scored_documents: Sequence[ScoredDocument], best: Sequence[ScoredDocument], texts: Sequence[str]
) -> dict[str, Any]:
    return {
        "scores": [
            shown_score(scored_document, logits=False) for scored_document in scored_documents
        ],
        "ranked_documents": [texts[scored_document.index] for scored_document in best],
        "ranked_scores": [shown_score(scored_document, logits=False) for scored_document in best],
    }


class PlainRequest(EchoingDocumentsBody):
    model_config = example({**_EXAMPLE, "top_n": 1})


class PlainResult(BaseModel):
    index: int
    relevance_score: float
    document: str | None = Field(None, description="Absent when not wanted.")


class PlainResponse(BaseModel):
    results: list[PlainResult] = Field(description="Most relevant first.")


class Plain(Dialect):
    name = "plain"
    about = "Results with their documents as strings."
    Request = PlainRequest
    response = PlainResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {"results": string_results(reply)}


class SimpleBatchRequest(RequestBody):
    model_config = example(
        {
            "queries": ["What is the capital of China?", "What is gravity?"],
            "documents": [
                ["The capital of China is Beijing.", "Lions live in Africa."],
                ["Gravity attracts two bodies."],
            ],
        }
    )

    sent_names: ClassVar = {"query": "queries"}

    queries: list[Any] = Field(
        description="The questions.",
        json_schema_extra={"items": SAYING, "minItems": 1, "x-limit": "max_documents"},
    )
    documents: list[Any] = Field(
        description="For each question its documents, or one array for all questions.",
        json_schema_extra={
            "items": {"anyOf": [LIST, *TEXT["anyOf"]]},
            "minItems": 1,
            "x-limit": "max_documents",
        },
    )
    top_k: Count | None = Field(
        None, ge=0, description="Ranked documents of each question; all when absent."
    )
    partial: bool | None = Field(
        None, description="Accepted, without effect: scores have no index, so none can be missing."
    )

    def accepts_partial(self) -> bool:
        return False

    def rank_requests(self, deadline: float | None = None) -> list[RankRequest]:
        """One for each question; together they are taken or refused."""
        queries = [_query(query, place) for place, query in enumerate(self.queries)]
        if not queries:
            raise InvalidRequest("queries must not be empty", param="queries")
        return [
            self.rank_request_for(query, documents, deadline)
            for query, documents in zip(queries, self._lists(len(queries)), strict=True)
        ]

    def _lists(self, count: int) -> list[tuple[str, ...]]:
        if not any(isinstance(one, list) for one in self.documents):
            return [texts_of(self.documents, "documents")] * count
        if len(self.documents) != count:
            raise InvalidRequest(
                f"{count} queries and {len(self.documents)} arrays of documents; send as many",
                param="documents",
            )
        return [_list(one, place) for place, one in enumerate(self.documents)]


def _query(value: Any, place: int) -> str:
    path = f"queries[{place}]"
    refuse_many_fields(value, path)
    try:
        return query_of(value)
    except ValueError as problem:
        raise InvalidRequest(f"{path} {problem}", param=path) from None


def _list(value: Any, place: int) -> tuple[str, ...]:
    path = f"documents[{place}]"
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{path} must be an array that is not empty", param=path)
    return texts_of(value, path)


class SimpleBatchResponse(BaseModel):
    results: list[SimpleResponse] = Field(description="In the order of the queries.")


async def batch_rerank(http: Request) -> Response:
    """Several questions in one request; taken together, or refused together."""
    service = service_of(http)
    request = json_io.validate(SimpleBatchRequest, await handler.read_body(http))
    service.accept_model(request.model)
    rank_requests = request.rank_requests(deadline_of(http, request.timeout_ms))
    ranking = await handler.rank(http, request, rank_requests, dialect=simple)
    groups = ranking.groups
    profile = handler.profile_of(http, request)
    through = [above_threshold(scored_documents, request, profile) for scored_documents in groups]
    left_out = sum(map(len, groups)) - sum(map(len, through))
    metrics.BELOW_THRESHOLD.inc(left_out)
    warnings = unknown_fields(request, simple.name) + profile_warnings(profile, service)
    for place, scored_documents in enumerate(groups):
        said = truncation_warnings(scored_documents)
        said += threshold_warnings(scored_documents, request, profile)
        warnings += [f"query {place}: {one}" for one in said]
    with current().stage("render"):
        return json_io.JsonResponse(
            {
                "results": [
                    _ranked(
                        scored_documents,
                        best_first(rest)[: request.top_k or None],
                        rank_request.documents,
                    )
                    for rank_request, scored_documents, rest in zip(
                        rank_requests, groups, through, strict=True
                    )
                ]
            },
            headers={
                **service.provenance.header,
                **profile.header,
                **warning_header(warnings),
                **usage_headers(ranking.usage()),
                **below_header(None if threshold_of(request, profile) is None else left_out),
            },
        )


simple = Simple()
plain = Plain()
