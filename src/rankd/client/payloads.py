"""Requests and responses: typed for the caller, JSON for the server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict

Text = str | Mapping[str, Any]
"""A document: its text, or a mapping with the text in `text` or in the `rank_fields`."""


class ScoreOptions(TypedDict, total=False):
    """Options of `rerank` and `score`. None, or absent: the server's default.

    Attributes:
        model: model name. Default: the client's `model`.
        instruction: what makes a document relevant to a query.
        preset: name of an instruction in the server's configuration.
        max_tokens_per_doc: token limit of a document; see `truncation`.
        raw_scores: True returns logits, in nats, instead of scores in [0, 1].
        priority: 0 to 999; lower is scored sooner. Default: 0.
        user: end user, for fair scheduling between users of one key.
        cache: False neither reads nor writes the server's cache.
        timeout_ms: the server's time limit, in milliseconds.
        timeout: the client's time limit, in seconds, retries included.
    """

    model: str | None
    instruction: str | None
    preset: str | None
    max_tokens_per_doc: int | None
    raw_scores: bool | None
    priority: int | None
    user: str | None
    cache: bool | None
    timeout_ms: int | None
    timeout: float | None


class RelevantSpans(TypedDict, total=False):
    """Which sentences of each document are returned as `Result.relevant_spans`.

    Attributes:
        mode: "disabled" returns none. Default: "enabled".
        threshold: minimum score of a sentence, 0 to 1. Default: 0.1.
        max_spans: maximum number per document. Default: all.
    """

    mode: Literal["enabled", "disabled"]
    threshold: float | None
    max_spans: int | None


class RerankOptions(ScoreOptions, total=False):
    """Further options of `rerank`.

    Attributes:
        top_n: number of results, best first. Default: all.
        return_documents: False omits the texts from the results.
        rank_fields: fields of mappings that are scored, in this order.
        truncation: documents above the token limit: "cut" scores a part, "refuse" is an
            error, "chunk" scores all parts and takes the best.
        truncation_side: the end that "cut" removes, "left" or "right".
        max_chunks_per_doc: maximum number of chunks of a document.
        overlap_tokens: tokens that neighbouring chunks share.
        return_details: True sets `Result.details`, and `normalized_score` if the server has a
            calibration.
        partial: True returns the documents scored so far when the server's time limit is over.
        score_threshold: documents with a lower `relevance_score` are left out.
        relevant_spans: True, or its options, sets `Result.relevant_spans`; each sentence costs
            tokens.
    """

    top_n: int | None
    return_documents: bool | None
    rank_fields: Sequence[str] | None
    truncation: Literal["cut", "refuse", "chunk"] | None
    truncation_side: Literal["left", "right"] | None
    max_chunks_per_doc: int | None
    overlap_tokens: int | None
    return_details: bool | None
    partial: bool | None
    score_threshold: float | None
    relevant_spans: RelevantSpans | bool | None


class RerankRequest(RerankOptions, total=False):
    """The arguments of one `rerank` call; `batch` takes many."""

    query: Required[str]
    documents: Required[Iterable[Text]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all pairs, prompt template included.

    Attributes:
        cached_tokens: prompt tokens of pairs whose score was cached; 0 if the response does not
            contain it.
    """

    prompt_tokens: int
    total_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a document that has the best score: `text[start:end]`.

    Attributes:
        index: from 0.
        of: number of chunks that were scored.
        start, end: in characters.
    """

    index: int
    of: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Details:
    """What was scored of a document.

    Attributes:
        tokens: number of tokens, prompt template included.
        truncated: whether a part of the document was not scored.
        chunk: the part with the best score.
    """

    tokens: int
    truncated: bool
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class RelevantSpan:
    """A sentence that answers the query: `text[start:end]`.

    Attributes:
        start, end: in characters.
        score: in [0, 1].
    """

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Result:
    """One document's relevance.

    Attributes:
        index: position in the request, from 0.
        relevance_score: in [0, 1]; with `raw_scores` a logit, in nats.
        document: the text; None if `return_documents` is False.
        details: None unless `return_details` is True.
        normalized_score: probability of relevance, by the server's calibration; None without a
            calibration or without `return_details`.
        relevant_spans: sentences that answer the query, most relevant first; empty if there are
            none, or without the option `relevant_spans`.
    """

    index: int
    relevance_score: float
    document: str | None
    details: Details | None = None
    normalized_score: float | None = None
    relevant_spans: tuple[RelevantSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """The response of `rerank`.

    Attributes:
        results: best first.
        model: name of the model.
        id: of the request, as in the server's log.
        warnings: such as documents that were cut, and unknown fields.
        not_scored: indices of documents that a partial response lacks.
        below_threshold: number of documents left out by a score threshold, the request's or
            the server's.
    """

    results: tuple[Result, ...]
    model: str
    id: str
    usage: Usage
    warnings: tuple[str, ...]
    not_scored: tuple[int, ...] = ()
    below_threshold: int = 0


@dataclass(frozen=True, slots=True)
class ScoreResponse:
    """The response of `score`; the scores are in the order of the documents."""

    scores: tuple[float, ...]
    model: str
    id: str
    usage: Usage
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A served model. `max_model_len`: maximum tokens of a pair, prompt template included."""

    id: str
    max_model_len: int


def encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # A lone surrogate, as from an emoji cut in two. Escaped, the server replaces it.
        return json.dumps(body, separators=(",", ":")).encode()


def texts(documents: Iterable[Text], *, whole: bool = False) -> list[str | dict[str, Any]]:
    """Documents as they are sent: of a mapping only its `text` if it has one, unless `whole`.

    Raises:
        TypeError: `documents` is a single document.
    """
    if isinstance(documents, str | Mapping):
        raise TypeError("documents is one document; give a list of documents")
    return [
        document if isinstance(document, str) else _object(document, whole)
        for document in documents
    ]


def _object(document: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    return dict(document) if whole or "text" not in document else {"text": document["text"]}


def refuse_unknown(options: Mapping[str, Any], declared: type) -> None:
    """Raise TypeError for an option that the TypedDict `declared` lacks."""
    for name in options:
        if name not in declared.__annotations__:
            raise TypeError(f"unknown option {name!r}")


def rerank_response(answer: Any) -> RerankResponse:
    return RerankResponse(
        tuple(
            Result(
                int(result["index"]),
                float(result["relevance_score"]),
                (result.get("document") or {}).get("text"),
                _details(result),
                result.get("normalized_score"),
                tuple(map(_span, result.get("relevant_spans", ()))),
            )
            for result in answer["results"]
        ),
        **_metadata(answer),
        not_scored=tuple(map(int, answer.get("meta", {}).get("not_scored", ()))),
        below_threshold=int(answer.get("meta", {}).get("below_threshold", 0)),
    )


def _span(span: Any) -> RelevantSpan:
    return RelevantSpan(int(span["start"]), int(span["end"]), float(span["score"]))


def _details(result: Any) -> Details | None:
    if "chunk" not in result:
        return None
    chunk = Chunk(*(int(result["chunk"][name]) for name in ("index", "of", "start", "end")))
    return Details(int(result["tokens"]), bool(result["truncated"]), chunk)


def score_response(answer: Any) -> ScoreResponse:
    return ScoreResponse(
        tuple(float(item["score"]) for item in answer["data"]), **_metadata(answer)
    )


def _metadata(answer: Any) -> dict[str, Any]:
    """The fields that all responses with scores have."""
    usage = answer["usage"]
    return {
        "model": answer["model"],
        "id": answer["id"],
        "usage": Usage(
            int(usage["prompt_tokens"]),
            int(usage["total_tokens"]),
            int(usage.get("cached_tokens", 0)),
        ),
        "warnings": tuple(answer.get("meta", {}).get("warnings", ())),
    }


def model_list(answer: Any) -> tuple[Model, ...]:
    return tuple(Model(item["id"], int(item["max_model_len"])) for item in answer["data"])


def ready(answer: Any) -> bool:
    return bool(answer["status"] == "ready")
