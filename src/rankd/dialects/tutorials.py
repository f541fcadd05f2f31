"""The two shapes that tutorials for Qwen3-Reranker publish, under `/simple` and `/plain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from pydantic import BaseModel, Field

from rankd import metrics
from rankd.desk import desk_of
from rankd.dialects import counter, wire
from rankd.dialects.base import (
    Asking,
    Dialect,
    Repeating,
    Reply,
    example,
    let_through,
    threshold_of,
)
from rankd.dialects.deadlines import deadline_of
from rankd.dialects.infinity import string_results
from rankd.dialects.texts import (
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
from rankd.errors import InvalidRequest
from rankd.timeline import current
from rankd.types import Ask, Verdict, best_first

_EXAMPLE: dict[str, Any] = {
    "query": "What is the capital of China?",
    "documents": ["Gravity attracts two bodies.", "The capital of China is Beijing."],
}


class SimpleRequest(Asking):
    model_config = example({**_EXAMPLE, "top_k": 1})

    query: Query = Field(description="The question.")
    documents: Documents = Field(description="What to judge.")
    top_k: Count | None = Field(
        None, ge=0, description="Documents in `ranked_documents`; all when absent."
    )
    partial: bool | None = Field(
        None, description="Accepted, without effect: scores have no index, so none can be missing."
    )

    def takes_part(self) -> bool:
        return False

    def question(self) -> str:
        return self.query

    def texts(self) -> tuple[str, ...]:
        return texts_of(self.documents, "documents")

    def most(self) -> int | None:
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

    def render(self, reply: Reply) -> dict[str, Any]:
        return _ranked(reply.verdicts, reply.best, reply.texts)


def _ranked(
    verdicts: Sequence[Verdict], best: Sequence[Verdict], texts: Sequence[str]
) -> dict[str, Any]:
    return {
        "scores": [wire.rounded(verdict.score) for verdict in verdicts],
        "ranked_documents": [texts[verdict.index] for verdict in best],
        "ranked_scores": [wire.rounded(verdict.score) for verdict in best],
    }


class PlainRequest(Repeating):
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


class BatchRequest(Asking):
    model_config = example(
        {
            "queries": ["What is the capital of China?", "What is gravity?"],
            "documents": [
                ["The capital of China is Beijing.", "Lions live in Africa."],
                ["Gravity attracts two bodies."],
            ],
        }
    )

    spelled: ClassVar = {"query": "queries"}

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

    def takes_part(self) -> bool:
        return False

    def asks(self, deadline: float | None = None) -> list[Ask]:
        """One for each question; together they are taken or refused."""
        queries = [_query(query, place) for place, query in enumerate(self.queries)]
        if not queries:
            raise InvalidRequest("queries must not be empty", param="queries")
        return [
            self.ask_about(query, documents, deadline)
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


class BatchResponse(BaseModel):
    results: list[SimpleResponse] = Field(description="In the order of the queries.")


async def batch_rerank(http: Request) -> Response:
    """Several questions in one request; taken together, or refused together."""
    desk = desk_of(http)
    request = wire.validated(BatchRequest, await counter.fields_in(http))
    desk.accept_model(request.model)
    asks = request.asks(deadline_of(http, request.timeout_ms))
    ranking = await counter.ranked(http, request, asks, dialect=simple)
    groups = ranking.groups
    profile = counter.profile_of(http, request)
    through = [let_through(verdicts, request, profile) for verdicts in groups]
    left_out = sum(map(len, groups)) - sum(map(len, through))
    metrics.BELOW_THRESHOLD.inc(left_out)
    warnings = wire.unknown_fields(request, simple.name) + counter.profile_warnings(profile, desk)
    for place, verdicts in enumerate(groups):
        said = wire.truncations(verdicts)
        said += counter.threshold_warnings(verdicts, request, profile)
        warnings += [f"query {place}: {one}" for one in said]
    with current().stage("render"):
        return wire.JSON(
            {
                "results": [
                    _ranked(verdicts, best_first(rest)[: request.top_k or None], ask.documents)
                    for ask, verdicts, rest in zip(asks, groups, through, strict=True)
                ]
            },
            headers={
                **desk.provenance.header,
                **profile.header,
                **wire.warning_header(warnings),
                **wire.usage_headers(ranking.usage()),
                **wire.below_header(None if threshold_of(request, profile) is None else left_out),
            },
        )


simple = Simple()
plain = Plain()
