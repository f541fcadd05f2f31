"""The dialect layer alone: request bytes in, response bytes out, with scores that are ready."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import orjson
from starlette.datastructures import Headers

from rankd.context import PREFIX
from rankd.dialects import DIALECTS, detect, post_routes
from rankd.engines.base import EngineInfo
from rankd.ranking.service import ModelService
from rankd.types import RankRequest, RankResult, RankUsage, ScoredDocument
from server import ROOT

CHARACTERS = 500
WORDS = (ROOT / "LICENSE").read_text().split()


def texts(count: int) -> list[str]:
    """English prose; each text begins differently."""
    chance = random.Random(count)
    starts = [chance.randrange(len(WORDS) - CHARACTERS) for _ in range(count)]
    return [" ".join(WORDS[start : start + CHARACTERS])[:CHARACTERS] for start in starts]


def example_with(example: Mapping[str, Any], documents: Sequence[str]) -> dict[str, Any]:
    """A dialect's example with these documents, and without a limit on results."""
    return {
        name: _value_with(name, value, documents)
        for name, value in example.items()
        if name not in ("top_n", "top_k")
    }


def _value_with(name: str, value: Any, documents: Sequence[str]) -> Any:
    match value:
        case [{"text": _, **others}, *_]:
            return [{"text": document, **others} for document in documents]
        case [str(), *_] if name != "rank_fields":
            return list(documents)
        case dict():
            return example_with(value, documents)
    return value


@dataclass
class ReadyRanker:
    """Replaces the ranker: returns prepared results, and notes when it was called."""

    results: list[ScoredDocument]
    max_documents: int = 1000
    called: float = 0.0

    @property
    def engine(self) -> ReadyRanker:
        return self

    @property
    def encoder(self) -> SimpleNamespace:
        return SimpleNamespace(template="0123456789ab")

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("fake", "model", "", "none", "none", 8192)

    async def rank_measured(
        self, requests: Sequence[RankRequest], on_result: object = None, timings: object = None
    ) -> RankResult:
        self.called = time.thread_time()
        results = self.results[: len(requests[0].documents)]
        usage = RankUsage(len(results), 0, 90 * len(results), 0, 1)
        return RankResult([results], results, [], usage)


def results(count: int) -> list[ScoredDocument]:
    chance = random.Random(count)
    return [ScoredDocument(index, chance.uniform(-9, 9), 170, 105, 105) for index in range(count)]


@dataclass
class ReceivedRequest:
    """Replaces Starlette's request, after the middleware."""

    raw: bytes
    scope: dict[str, Any]
    app: Any
    path_params: dict[str, str] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)

    async def body(self) -> bytes:
        return self.raw


def layers(repetitions: int, count: int = 100) -> None:
    documents = texts(count)
    print(f"The dialect layer alone, {count} documents of {CHARACTERS} characters,", end=" ")
    print("microseconds of CPU:\n")
    print("| dialect | kB in | kB out | reading | writing | both, median | p99 |")
    print("|---|---|---|---|---|---|---|")
    print(layer(example_with(_example(detect.ORDER[-1]), documents), repetitions).row("/v1/rerank"))
    for dialect in DIALECTS:
        body = example_with(_example(dialect), documents)
        if dialect.mounted:
            path = dialect.mounted[0]
            row = layer(body, repetitions, path, prefix=dialect.name).row(dialect.prefix + path)
        else:
            row = layer(body, repetitions, dialect.paths[0]).row(dialect.paths[0])
        print(row, flush=True)


def _example(dialect: Any) -> dict[str, Any]:
    return cast(dict[str, Any], dialect.Request.model_config["json_schema_extra"]["example"])


@dataclass
class Layer:
    """Times of one body in one dialect, in seconds.

    Attributes:
        sizes: bytes of request and response.
        reading: from bytes to a RankRequest.
        writing: from results to bytes.
    """

    sizes: tuple[int, int] = (0, 0)
    reading: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)

    @property
    def both(self) -> list[float]:
        return [read + write for read, write in zip(self.reading, self.writing, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.both) * 1e6

    def row(self, path: str) -> str:
        read, written = (statistics.median(part) * 1e6 for part in (self.reading, self.writing))
        p99 = statistics.quantiles(self.both, n=100)[98] * 1e6
        return (
            f"| `{path}` | {self.sizes[0] / 1000:.0f} | {self.sizes[1] / 1000:.0f} "
            f"| {read:.0f} | {written:.0f} | {self.median:.0f} | {p99:.0f} |"
        )


def layer(
    body: dict[str, Any], repetitions: int, path: str = "/v1/rerank", *, prefix: str | None = None
) -> Layer:
    """Time a route, from the bytes of the request to the bytes of the response."""
    ready = ReadyRanker(results(1000))
    app = SimpleNamespace(state=SimpleNamespace(service=ModelService(cast(Any, ready), "model")))
    [route] = (route.endpoint for route in post_routes() if route.path == path)
    scope = {"path": path} | ({PREFIX: prefix} if prefix else {})
    raw, layer = orjson.dumps(body), Layer()
    for number in range(-repetitions // 10, repetitions):
        request = ReceivedRequest(raw, dict(scope), app)
        began = time.thread_time()
        response = _now(route(request))
        ended = time.thread_time()
        if number >= 0:  # Negative numbers warm up.
            layer.reading.append(ready.called - began)
            layer.writing.append(ended - ready.called)
    layer.sizes = len(raw), len(response.body)
    return layer


def _now(work: Any) -> Any:
    """Run a coroutine that never waits; returns its result."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("the coroutine waits")
