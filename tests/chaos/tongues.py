"""One request in the words of each dialect, and each dialect's answer in ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from corpus import DOCUMENTS, QUESTIONS, Wanted


@dataclass(frozen=True)
class Found:
    """One result; `text` where the answer repeats its document."""

    index: int
    number: float
    text: str | None = None


@dataclass(frozen=True)
class Tongue:
    """A dialect.

    Attributes:
        best_first: else results come in the order of the request.
        tops: whether a request can say how many results it wants.
        logits: "always", "never", or by the field that asks for them.
        many: whether a request may hold several questions.
    """

    name: str
    path: str
    write: Callable[[Wanted], dict[str, Any]]
    read: Callable[[Any], list[Found]]
    best_first: bool = True
    tops: bool = True
    logits: str = "never"
    many: bool = False

    def body(self, wanted: Wanted) -> dict[str, Any]:
        said = self.write(wanted) | wanted.extras
        if not self.many and wanted.question.instruction is not None:
            said["instruction"] = wanted.question.instruction
        return said


def _listing(documents: str, top: str, **fixed: Any) -> Callable[[Wanted], dict[str, Any]]:
    def write(wanted: Wanted) -> dict[str, Any]:
        body = {"query": wanted.question.query, documents: wanted.texts, **fixed}
        return body if wanted.top is None else body | {top: wanted.top}

    return write


def _objects(wanted: Wanted) -> dict[str, Any]:
    body = _listing("documents", "top_n", return_documents=True, rank_fields=["text"])(wanted)
    return body | {"documents": [{"text": text, "id": 7} for text in wanted.texts]}


def _openai(wanted: Wanted) -> dict[str, Any]:
    return _listing("documents", "top_n", model="some")(wanted) | {
        "use_activation": not wanted.logits
    }


def _tei(wanted: Wanted) -> dict[str, Any]:
    return _listing("texts", "top_n")(wanted) | {
        "raw_scores": wanted.logits,
        "return_text": bool(wanted.top),
    }


def _score(wanted: Wanted) -> dict[str, Any]:
    return {
        "text_1": wanted.question.query,
        "text_2": wanted.texts,
        "use_activation": not wanted.logits,
    }


def _batch(wanted: Wanted) -> dict[str, Any]:
    groups = [(one, list(run)) for one, run in groupby(wanted.pairs, key=itemgetter(0))]
    return {
        "queries": [QUESTIONS[one].query for one, _ in groups],
        "documents": [[DOCUMENTS[document] for _, document in run] for _, run in groups],
    }


def _dashscope(wanted: Wanted) -> dict[str, Any]:
    parameters = {"return_documents": True} | ({"top_n": wanted.top} if wanted.top else {})
    told = {"query": wanted.question.query, "documents": wanted.texts}
    return {"model": "gte-rerank-v2", "input": told, "parameters": parameters}


def _nim(wanted: Wanted) -> dict[str, Any]:
    passages = [{"text": text} for text in wanted.texts]
    return {"model": "some", "query": {"text": wanted.question.query}, "passages": passages}


def _rows(value: list[dict[str, Any]], number: str, document: str = "document") -> list[Found]:
    return [Found(row["index"], row[number], _text(row.get(document))) for row in value]


def _text(value: str | dict[str, str] | None) -> str | None:
    return value["text"] if isinstance(value, dict) else value


def _results(answer: Any) -> list[Found]:
    return _rows(answer["results"], "relevance_score")


def _batches(answer: Any) -> list[Found]:
    scores = [score for one in answer["results"] for score in one["scores"]]
    return [Found(index, score) for index, score in enumerate(scores)]


OPENAI = Tongue("openai", "/v1/rerank", _openai, _results, logits="use_activation")

TONGUES = (
    OPENAI,
    Tongue("cohere v1", "/cohere/v1/rerank", _objects, _results),
    Tongue("cohere v2", "/cohere/v2/rerank", _listing("documents", "top_n", model="x"), _results),
    Tongue("jina", "/jina/v1/rerank", _listing("documents", "top_n", model="x"), _results),
    Tongue(
        "voyage",
        "/v1/rerank",
        _listing("documents", "top_k", truncation=True, return_documents=True),
        lambda answer: _rows(answer["data"], "relevance_score"),
    ),
    Tongue(
        "tei", "/rerank", _tei, lambda answer: _rows(answer, "score", "text"), logits="raw_scores"
    ),
    Tongue(
        "vllm score",
        "/v1/score",
        _score,
        lambda answer: _rows(answer["data"], "score"),
        best_first=False,
        tops=False,
        logits="use_activation",
    ),
    Tongue("vllm rerank", "/vllm/rerank", _listing("documents", "top_n"), _results),
    Tongue(
        "batch_rerank",
        "/simple/batch_rerank",
        _batch,
        _batches,
        best_first=False,
        tops=False,
        many=True,
    ),
    Tongue(
        "dashscope",
        "/api/v1/services/rerank/text-rerank/text-rerank",
        _dashscope,
        lambda answer: _results(answer["output"]),
    ),
    Tongue(
        "nim",
        "/v1/ranking",
        _nim,
        lambda answer: _rows(answer["rankings"], "logit"),
        tops=False,
        logits="always",
    ),
    Tongue(
        "mixedbread",
        "/v1/rerank",
        _listing("input", "top_k", return_input=True),
        lambda answer: _rows(answer["data"], "score", "input"),
    ),
)
