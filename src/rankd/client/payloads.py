"""What is asked and what is answered: typed for the caller, JSON for the server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict

Text = str | Mapping[str, Any]
"""A document: its text, or a mapping that holds it as `text` or in the `rank_fields`."""


class ScoreOptions(TypedDict, total=False):
    """What any call for scores may ask; None and absent take the server's default.

    Attributes:
        model: the client's `model` when absent.
        instruction: what relevance means here.
        preset: the name of an instruction that the server holds.
        max_tokens_per_doc: longer documents do not fit; `truncation` says what becomes of them.
        raw_scores: logits, in nats, instead of scores in [0, 1].
        priority: 0 to 999; lower is sooner.
        user: who asks; the users of a key share the engine fairly.
        cache: False computes every score, and leaves none behind.
        timeout_ms: the server gives up after so many milliseconds.
        timeout: this side gives up after so many seconds, retries included.
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


class RerankOptions(ScoreOptions, total=False):
    """What `rerank` may ask besides.

    Attributes:
        top_n: results to return, best first; all when absent.
        return_documents: False leaves out the texts.
        rank_fields: fields of mappings that are read, in this order.
        truncation: what becomes of longer documents: "cut", "refuse" or "chunk".
        truncation_side: "left" cuts them at their start.
        max_chunks_per_doc: a longer document is read in up to so many; the best counts.
        overlap_tokens: what neighbouring chunks share.
        return_details: True tells what was read of each document, `Result.details`, and its
            `normalized_score` where the server can.
        partial: True answers with what is scored when the server's time is over.
        score_threshold: documents whose `relevance_score` is below are left out.
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


class RerankRequest(RerankOptions, total=False):
    """One call of `rerank`, as `batch` takes them."""

    query: Required[str]
    documents: Required[Iterable[Text]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of every pair, template included.

    Attributes:
        cached_tokens: of the prompt tokens, those of pairs computed for an earlier request; 0
            where the answer does not say.
    """

    prompt_tokens: int
    total_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a document that has its score: `text[start:end]`.

    Attributes:
        index: its place among the `of` chunks that were read, from 0.
    """

    index: int
    of: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Details:
    """What was read of a document.

    Attributes:
        tokens: that the model read, template included.
        truncated: whether a part of it was not read.
    """

    tokens: int
    truncated: bool
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Result:
    """One document's relevance.

    Attributes:
        index: its place in the request, from 0.
        relevance_score: in [0, 1], or a logit where `raw_scores` was asked for.
        document: its text; None where `return_documents` was False.
        details: None unless `return_details` was True.
        normalized_score: how probable its relevance is, by the server's calibration; None
            without one, or without `return_details`.
    """

    index: int
    relevance_score: float
    document: str | None
    details: Details | None = None
    normalized_score: float | None = None


@dataclass(frozen=True, slots=True)
class RerankResponse:
    """Results, best first; `warnings` say which documents were cut.

    Attributes:
        not_scored: indices of the documents that a partial answer lacks.
        below_threshold: documents left out for their score, by a threshold of the request
            or of the server.
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
    """Scores in the order of the documents."""

    scores: tuple[float, ...]
    model: str
    id: str
    usage: Usage
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A served model; `max_model_len` is in tokens of one pair."""

    id: str
    max_model_len: int


def encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, left by whoever cut an emoji in two; escaped, the server mends it.
        return json.dumps(body, separators=(",", ":")).encode()


def texts(documents: Iterable[Text], *, whole: bool = False) -> list[str | dict[str, Any]]:
    """Documents as they are sent; of a mapping with a text nothing but it, unless `whole`."""
    if isinstance(documents, str | Mapping):
        raise TypeError("documents is one document; give a list of them")
    return [one if isinstance(one, str) else _object(one, whole) for one in documents]


def _object(document: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    return dict(document) if whole or "text" not in document else {"text": document["text"]}


def refuse_unknown(options: Mapping[str, Any], known: type) -> None:
    for name in options:
        if name not in known.__annotations__:
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
            )
            for result in answer["results"]
        ),
        **_about(answer),
        not_scored=tuple(map(int, answer.get("meta", {}).get("not_scored", ()))),
        below_threshold=int(answer.get("meta", {}).get("below_threshold", 0)),
    )


def _details(result: Any) -> Details | None:
    if "chunk" not in result:
        return None
    chunk = Chunk(*(int(result["chunk"][name]) for name in ("index", "of", "start", "end")))
    return Details(int(result["tokens"]), bool(result["truncated"]), chunk)


def score_response(answer: Any) -> ScoreResponse:
    return ScoreResponse(tuple(float(one["score"]) for one in answer["data"]), **_about(answer))


def _about(answer: Any) -> dict[str, Any]:
    """What all answers with scores say."""
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
    return tuple(Model(one["id"], int(one["max_model_len"])) for one in answer["data"])


def ready(answer: Any) -> bool:
    return bool(answer["status"] == "ready")
