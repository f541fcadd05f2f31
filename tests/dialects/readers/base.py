"""What the readers share: the registry, how languages parse JSON, and common checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Scores = dict[int, float]


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    Attributes:
        request: the request's body; None if it has none.
    """

    request: Any
    status: int
    text: str

    @property
    def answer(self) -> Any:
        return json.loads(self.text)

    @property
    def documents(self) -> list[str]:
        return query_and_documents(self.request)[1]


Reader = Callable[[Sequence[Exchange]], Scores]
ErrorReader = Callable[[Exchange], str]

# By the stem of a file in `wire/`: the score of each document, as the application reads it.
READERS: dict[str, Reader] = {}
# By the stem: the error message that the application shows to its user.
ERROR_READERS: dict[str, ErrorReader] = {}


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Registers a reader for files of `wire/`, by their stems."""

    def register(reader: Reader) -> Reader:
        for name in names:
            assert name not in READERS, name
            READERS[name] = reader
        return reader

    return register


def reads_errors(*names: str) -> Callable[[ErrorReader], ErrorReader]:
    """Registers an error reader for files of `wire/`, by their stems."""

    def register(reader: ErrorReader) -> ErrorReader:
        for name in names:
            assert name not in ERROR_READERS, name
            ERROR_READERS[name] = reader
        return reader

    return register


def query_and_documents(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The query and the documents of a request body of any vendor."""
    if isinstance(body.get("input"), dict):
        body = body["input"]
    for name in ("documents", "texts", "passages", "input"):
        if name in body:
            return _text(body["query"]), [_text(item) for item in body[name]]
    raise AssertionError(f"no documents in {sorted(body)}")


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case {"text": str(text)}:
            return text
        case {"content": [{"type": "text", "text": str(text)}]}:
            return text
    raise AssertionError(f"no text in {value!r}")


def without_lone_surrogates(text: str) -> str:
    """The text with lone surrogates replaced: no encoding of an answer can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def go(value: Any, shape: Any) -> Any:
    """`json.Unmarshal` into structs: null and absent are zero, a wrong type is an error."""
    match shape:
        case dict():
            assert value is None or isinstance(value, dict), f"not a struct: {value!r}"
            return {name: go((value or {}).get(name), inner) for name, inner in shape.items()}
        case [inner]:
            assert value is None or isinstance(value, list), f"not a slice: {value!r}"
            return [go(item, inner) for item in value or []]
    if shape is Any:
        return value
    if value is None:
        return shape()
    if shape is float:
        assert type(value) in (int, float), f"not a float64: {value!r}"
    else:
        assert type(value) is shape, f"not a Go {shape.__name__}: {value!r}"
    return value


def json_smart(text: str) -> Any:
    """As Java's json-smart parses: number literals over 18 characters become BigDecimal."""
    return json.loads(
        text, parse_float=lambda digits: float(digits) if len(digits) <= 18 else Decimal(digits)
    )


def number(value: Any) -> float:
    """A JSON number, as a float."""
    assert type(value) in (int, float), f"not a number: {value!r}"
    return float(value)


def integer(value: Any) -> int:
    assert type(value) is int, f"not an integer: {value!r}"
    return value


def scores_by_index(items: Iterable[Mapping[str, Any]], score: str = "relevance_score") -> Scores:
    """The score of each item, by its `index`; no index may come twice."""
    scores: Scores = {}
    for item in items:
        index = integer(item["index"])
        assert index not in scores, f"index {index} came twice"
        scores[index] = number(item[score])
    return scores


def best_first(scores: Scores) -> Scores:
    """For applications that keep the answer's order."""
    assert list(scores.values()) == sorted(scores.values(), reverse=True), "not best first"
    return scores


def complete(exchange: Exchange, scores: Scores) -> Scores:
    """For applications that sort by index and then use positions."""
    assert sorted(scores) == list(range(len(exchange.documents))), "a document is missing"
    return scores


def ok(exchange: Exchange) -> Exchange:
    assert exchange.status == 200, exchange.text
    return exchange


def indexes_in_range(
    exchange: Exchange, items: Sequence[Mapping[str, Any]], score: str = "relevance_score"
) -> Scores:
    """As `scores_by_index`; each index must be that of a document."""
    scores = scores_by_index(items, score)
    assert all(0 <= index < len(exchange.documents) for index in scores)
    return scores


def by_position(exchanges: Sequence[Exchange]) -> Scores:
    """Sorts by index; the n-th score is that of the n-th document."""
    results = sorted(ok(exchanges[-1]).answer["results"], key=lambda result: result["index"])
    scores = [number(result["relevance_score"]) for result in results]
    assert len(scores) == len(exchanges[-1].documents), "a document is missing"
    return dict(enumerate(scores))


def xinference_client(exchanges: Sequence[Exchange]) -> Exchange:
    """The last exchange of Xinference's client, which first asks for auth and for the model."""
    auth, model, last = exchanges
    assert auth.status == 404 or isinstance(auth.answer["auth"], bool)
    assert ok(model).answer["model_type"] == "rerank"
    return ok(last)
