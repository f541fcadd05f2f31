"""The request and answer formats of two Qwen3-Reranker tutorials, under `/simple` and `/plain`.

`/simple` also has `/simple/batch_rerank`: several queries in one request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from pydantic import BaseModel, Field, model_validator

from rankd.context import PARSING
from rankd.dialects import handler, json_io
from rankd.dialects.answer_size import min_answer_bytes, refuse_large_answer
from rankd.dialects.base import Dialect, ExtraRoute
from rankd.dialects.fields import (
    LIST,
    SAYING,
    TEXT,
    Count,
    Documents,
    Query,
    query_of,
    text_at,
    texts_of,
)
from rankd.dialects.headers import answer_headers
from rankd.dialects.infinity import string_results
from rankd.dialects.reply import (
    AnswerResult,
    Reply,
    above_threshold,
    best_results,
)
from rankd.dialects.request import EchoingDocumentsBody, RequestBody, SentFields, example
from rankd.dialects.resolved import ResolvedRequest
from rankd.dialects.warnings import (
    count_unknown_fields,
    field_warnings,
    instruction_warnings,
    threshold_warnings,
    truncation_warnings,
)
from rankd.errors import InvalidRequest
from rankd.ranking.service import ModelService, service_of
from rankd.telemetry import metrics
from rankd.types import ScoredDocument, shown_numbers

_EXAMPLE: dict[str, Any] = {
    "query": "What is the capital of China?",
    "documents": ["Gravity attracts two bodies.", "The capital of China is Beijing."],
}


class SimpleRequest(RequestBody):
    model_config = example({**_EXAMPLE, "top_k": 1})

    query: Query = Field(description="The search query.")
    documents: Documents = Field(description="Documents to rank.")
    top_k: Count | None = Field(
        None, ge=0, description="Maximum documents in `ranked_documents`. Default: all."
    )
    partial: bool | None = Field(
        None, description="Accepted without effect: scores have no index, so all are returned."
    )

    accepts_partial: ClassVar[bool] = False

    def sent(self) -> SentFields:
        return SentFields(
            queries=[(self.query, texts_of(self.documents, "documents"))], top_n=self.top_k
        )


class SimpleResponse(BaseModel):
    scores: list[float] = Field(description="In the order of the request.")
    ranked_documents: list[str] = Field(description="Most relevant first.")
    ranked_scores: list[float] = Field(description="Scores of `ranked_documents`.")


class Simple(Dialect):
    name = "simple"
    about = "Scores in request order, and documents in order of relevance."
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
        return _ranked(reply.numbers, reply.best)


def _ranked(scores: Sequence[float], best: Sequence[AnswerResult]) -> dict[str, Any]:
    return {
        "scores": scores,
        "ranked_documents": [result.text for result in best],
        "ranked_scores": [result.number for result in best],
    }


class PlainRequest(EchoingDocumentsBody):
    model_config = example({**_EXAMPLE, "top_n": 1})


class PlainResult(BaseModel):
    index: int
    relevance_score: float
    document: str | None = Field(None, description="Absent unless requested.")


class PlainResponse(BaseModel):
    results: list[PlainResult] = Field(description="Most relevant first.")


class Plain(Dialect):
    name = "plain"
    about = "Results whose documents are strings."
    Request = PlainRequest
    response = PlainResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {"results": string_results(reply)}


# Fields of a batch and what they are called in one of its `pairs`.
_COLUMNS = {"queries": "query", "documents": "documents"}


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
        description="The search queries.",
        json_schema_extra={"items": SAYING, "minItems": 1, "x-limit": "max_documents"},
    )
    documents: list[Any] = Field(
        description="One array of documents per query, or one array of texts for all queries.",
        json_schema_extra={
            "items": {"anyOf": [LIST, *TEXT["anyOf"]]},
            "minItems": 1,
            "x-limit": "max_documents",
        },
    )
    top_k: Count | None = Field(
        None, ge=0, description="Maximum ranked documents per query. Default: all."
    )
    partial: bool | None = Field(
        None, description="Accepted without effect: scores have no index, so all are returned."
    )

    accepts_partial: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _read_pairs(cls, body: Any) -> Any:
        """`pairs`, each a query with its documents, as the two arrays."""
        if not isinstance(body, dict) or not isinstance(pairs := body.get("pairs"), list):
            return body
        if beside := [name for name in _COLUMNS if name in body]:
            raise InvalidRequest(f"send either pairs or {beside[0]}, not both", param="pairs")
        for index, pair in enumerate(pairs):
            _check_pair(pair, index)
        # Fields of pairs that no dialect has stand beside them, so that a warning names them.
        unknown = {name: value for pair in pairs for name, value in pair.items()}
        others = {name: value for name, value in body.items() if name != "pairs"}
        columns = {f: [pair[n] for pair in pairs] for f, n in _COLUMNS.items()}
        for name in _COLUMNS.values():
            unknown.pop(name, None)
        return {**unknown, **others, **columns}

    def sent(self) -> SentFields:
        """One query with its documents after another."""
        queries = [
            text_at(query, f"queries[{index}]", query_of)
            for index, query in enumerate(self.queries)
        ]
        if not queries:
            raise InvalidRequest("queries must not be empty", param="queries")
        documents = self._document_lists(len(queries))
        return SentFields(queries=list(zip(queries, documents, strict=True)), top_n=self.top_k)

    def _document_lists(self, count: int) -> list[tuple[str, ...]]:
        """The texts for each of `count` queries."""
        if not any(isinstance(item, list) for item in self.documents):
            return [texts_of(self.documents, "documents")] * count
        if len(self.documents) != count:
            raise InvalidRequest(
                f"{count} queries and {len(self.documents)} arrays of documents; "
                "send one array per query, or one array for all",
                param="documents",
            )
        return [_read_documents(item, index) for index, item in enumerate(self.documents)]


def _check_pair(pair: Any, index: int) -> None:
    """Raises `InvalidRequest` if it lacks a field, or has one that belongs beside the pairs."""
    if not isinstance(pair, dict) or not {"query", "documents"} <= pair.keys():
        raise InvalidRequest(
            f"pairs[{index}] must be an object with query and documents", param="pairs"
        )
    for name in pair.keys() & SimpleRequest.model_fields.keys() - set(_COLUMNS.values()):
        raise InvalidRequest(
            f"pairs[{index}] has {name}: send it beside pairs, for all of them, or POST to "
            "/batch_rerank, where each pair may have its own",
            param="pairs",
        )


def _read_documents(value: Any, index: int) -> tuple[str, ...]:
    path = f"documents[{index}]"
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{path} must be an array that is not empty", param=path)
    return texts_of(value, path)


class SimpleBatchResponse(BaseModel):
    results: list[SimpleResponse] = Field(description="In the order of the queries.")


async def batch_rerank(http: Request) -> Response:
    """Rerank several queries in one request; all are admitted together, or refused together."""
    service = service_of(http)
    http.scope[PARSING] = time.perf_counter()
    request = await handler.run_on_body(http, _read_batch, http, service, await http.body())
    refuse_large_answer(min_answer_bytes(request, echoes=True), service.max_response_bytes)
    ranked = await handler.rank(http, service, simple, request)
    groups, options = ranked.result.groups, request.answer
    kept = [above_threshold(scored_documents, options) for scored_documents in groups]
    left_out = sum(map(len, groups)) - sum(map(len, kept))
    metrics.BELOW_THRESHOLD.inc(left_out)
    with ranked.timings.stage("render"):
        return json_io.JsonResponse(
            {
                "results": [
                    _ranked(
                        shown_numbers(scored_documents, logits=False),
                        best_results(above, rank.documents, options),
                    )
                    for rank, scored_documents, above in zip(
                        request.ranks, groups, kept, strict=True
                    )
                ]
            },
            headers={
                **service.provenance.header,
                **request.profile.header,
                **answer_headers(
                    _warnings(request, groups),
                    ranked.result.usage,
                    None if options.threshold is None else left_out,
                ),
            },
        )


def _read_batch(http: Request, service: ModelService, raw: bytes) -> ResolvedRequest:
    body = json_io.read_object_or_array(raw, service.ranker.max_documents, "pairs")
    return handler.resolve(http, service, json_io.validate(SimpleBatchRequest, body))


def _warnings(request: ResolvedRequest, groups: Sequence[Sequence[ScoredDocument]]) -> list[str]:
    count_unknown_fields(request.unknown_fields, simple.name)
    warnings = field_warnings(request.unknown_fields) + instruction_warnings(request)
    for index, scored_documents in enumerate(groups):
        query_warnings = truncation_warnings(scored_documents)
        query_warnings += threshold_warnings(scored_documents, request.answer)
        warnings += [f"query {index}: {warning}" for warning in query_warnings]
    return warnings


simple = Simple()
plain = Plain()
