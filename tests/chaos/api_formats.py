"""Writes a request in each API format, and reads its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from corpus import DOCUMENTS, INSTRUCTED_QUERIES, ChaosRequest


@dataclass(frozen=True)
class ResultRow:
    """One result.

    Attributes:
        number: score or logit.
        text: the document, if the answer contains it.
    """

    index: int
    number: float
    text: str | None = None


@dataclass(frozen=True)
class ApiFormat:
    """One vendor's API.

    Attributes:
        write: makes the body of a request.
        read: results of an answer's body.
        best_first: results are sorted; else they are in request order.
        has_top: a request can limit the number of results.
        logits: "always", "never", or the field that asks for logits.
        has_many_queries: a request can have several queries.
    """

    name: str
    path: str
    write: Callable[[ChaosRequest], dict[str, Any]]
    read: Callable[[Any], list[ResultRow]]
    best_first: bool = True
    has_top: bool = True
    logits: str = "never"
    has_many_queries: bool = False

    def body(self, request: ChaosRequest) -> dict[str, Any]:
        body = self.write(request) | request.extras
        if not self.has_many_queries and request.instructed_query.instruction is not None:
            body["instruction"] = request.instructed_query.instruction
        return body


def _plain(
    documents_field: str, top_field: str, **fixed: Any
) -> Callable[[ChaosRequest], dict[str, Any]]:
    def write(request: ChaosRequest) -> dict[str, Any]:
        body = {"query": request.instructed_query.query, documents_field: request.texts, **fixed}
        return body if request.top is None else body | {top_field: request.top}

    return write


def _document_objects(request: ChaosRequest) -> dict[str, Any]:
    body = _plain("documents", "top_n", return_documents=True, rank_fields=["text"])(request)
    return body | {"documents": [{"text": text, "id": 7} for text in request.texts]}


def _openai(request: ChaosRequest) -> dict[str, Any]:
    return _plain("documents", "top_n", model="some")(request) | {
        "use_activation": not request.logits
    }


def _tei(request: ChaosRequest) -> dict[str, Any]:
    return _plain("texts", "top_n")(request) | {
        "raw_scores": request.logits,
        "return_text": bool(request.top),
    }


def _score(request: ChaosRequest) -> dict[str, Any]:
    return {
        "text_1": request.instructed_query.query,
        "text_2": request.texts,
        "use_activation": not request.logits,
    }


def _batch(request: ChaosRequest) -> dict[str, Any]:
    groups = [(query, list(pairs)) for query, pairs in groupby(request.pairs, key=itemgetter(0))]
    return {
        "queries": [INSTRUCTED_QUERIES[query].query for query, _ in groups],
        "documents": [[DOCUMENTS[document] for _, document in pairs] for _, pairs in groups],
    }


def _dashscope(request: ChaosRequest) -> dict[str, Any]:
    parameters = {"return_documents": True} | ({"top_n": request.top} if request.top else {})
    inputs = {"query": request.instructed_query.query, "documents": request.texts}
    return {"model": "gte-rerank-v2", "input": inputs, "parameters": parameters}


def _nim(request: ChaosRequest) -> dict[str, Any]:
    passages = [{"text": text} for text in request.texts]
    return {
        "model": "some",
        "query": {"text": request.instructed_query.query},
        "passages": passages,
    }


def _deepinfra(request: ChaosRequest) -> dict[str, Any]:
    return {"queries": [request.instructed_query.query], "documents": request.texts}


def _bedrock(request: ChaosRequest) -> dict[str, Any]:
    documents = [{"type": "TEXT", "textDocument": {"text": text}} for text in request.texts]
    query = {"type": "TEXT", "textQuery": {"text": request.instructed_query.query}}
    sources = [{"type": "INLINE", "inlineDocumentSource": document} for document in documents]
    return {"queries": [query], "sources": sources}


def _rows(value: list[dict[str, Any]], number: str, document: str = "document") -> list[ResultRow]:
    return [ResultRow(row["index"], row[number], _text(row.get(document))) for row in value]


def _text(value: str | dict[str, str] | None) -> str | None:
    return value["text"] if isinstance(value, dict) else value


def _results(answer: Any) -> list[ResultRow]:
    return _rows(answer["results"], "relevance_score")


def _batches(answer: Any) -> list[ResultRow]:
    scores = [score for result in answer["results"] for score in result["scores"]]
    return [ResultRow(index, score) for index, score in enumerate(scores)]


OPENAI = ApiFormat("openai", "/v1/rerank", _openai, _results, logits="use_activation")

API_FORMATS = (
    OPENAI,
    ApiFormat("cohere v1", "/cohere/v1/rerank", _document_objects, _results),
    ApiFormat("cohere v2", "/cohere/v2/rerank", _plain("documents", "top_n", model="x"), _results),
    ApiFormat("jina", "/jina/v1/rerank", _plain("documents", "top_n", model="x"), _results),
    ApiFormat(
        "voyage",
        "/v1/rerank",
        _plain("documents", "top_k", truncation=True, return_documents=True),
        lambda answer: _rows(answer["data"], "relevance_score"),
    ),
    ApiFormat(
        "tei", "/rerank", _tei, lambda answer: _rows(answer, "score", "text"), logits="raw_scores"
    ),
    ApiFormat(
        "vllm score",
        "/v1/score",
        _score,
        lambda answer: _rows(answer["data"], "score"),
        best_first=False,
        has_top=False,
        logits="use_activation",
    ),
    ApiFormat("vllm rerank", "/vllm/rerank", _plain("documents", "top_n"), _results),
    ApiFormat(
        "batch_rerank",
        "/simple/batch_rerank",
        _batch,
        _batches,
        best_first=False,
        has_top=False,
        has_many_queries=True,
    ),
    ApiFormat(
        "dashscope",
        "/api/v1/services/rerank/text-rerank/text-rerank",
        _dashscope,
        lambda answer: _results(answer["output"]),
    ),
    ApiFormat(
        "nim",
        "/v1/ranking",
        _nim,
        lambda answer: _rows(answer["rankings"], "logit"),
        has_top=False,
        logits="always",
    ),
    ApiFormat(
        "deepinfra",
        "/v1/inference/some/model",
        _deepinfra,
        lambda answer: [ResultRow(*pair) for pair in enumerate(answer["scores"])],
        best_first=False,
        has_top=False,
    ),
    ApiFormat(
        "bedrock",
        "/rerank",
        _bedrock,
        lambda answer: _rows(answer["results"], "relevanceScore"),
        has_top=False,
    ),
    ApiFormat(
        "mixedbread",
        "/v1/rerank",
        _plain("input", "top_k", return_input=True),
        lambda answer: _rows(answer["data"], "score", "input"),
    ),
)
