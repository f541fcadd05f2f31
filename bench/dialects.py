"""What HTTP and the dialects cost: alone, and on one core beside a bare FastAPI app.

    python bench/dialects.py [--rounds 5] [--seconds 3] [--connections 8]

1. The dialect layer by itself: bytes in, bytes out, with verdicts that are ready.
2. Documents per second with the fake engine, server on one core and load on another,
   against an app that parses the same body and echoes it: same uvicorn, same core, in turn.
3. Where a request's time goes, by timers around its parts.

Documents are English, of 500 characters; scores are made up. Needs two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from server import ROOT, Load, client, cpu_seconds

sys.path.insert(0, str(ROOT / "tests"))

from rankd.config.settings import Settings
from rankd.context import PREFIX
from rankd.dialects import DIALECTS, detect, post_routes
from rankd.engines.base import EngineInfo
from rankd.ranking.service import ModelService
from rankd.server.app import build, open_app
from rankd.server.middleware import KeyRing
from rankd.types import RankRequest, RankResult, ScoredDocument
from support.checkpoints import make_checkpoint
from support.servers import serving

CHARACTERS = 500
WORDS = (ROOT / "LICENSE").read_text().split()


def main() -> None:
    options = _options()
    if options.be:
        return be(options.be, options.fd)
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two cores: one for the server, one for the load")
    layers(options.repetitions)
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        # Only its tokenizer is used.
        model = str(make_checkpoint(Path(folder) / "model", hidden=32, layers=1, heads=1))
        compare(model, options)
        with on_core(max(os.sched_getaffinity(0))):
            for count in options.documents:
                uvloop.run(split(model, count, options.repetitions))
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repetitions", type=int, default=500, help="of one body, in 1 and 3")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds, in 2")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--documents", type=int, nargs="+", default=[100, 5], help="in one request")
    # How it starts the other servers.
    parser.add_argument("--be", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


# The bodies.


def texts(count: int) -> list[str]:
    """English prose; no two begin alike."""
    chance = random.Random(count)
    starts = [chance.randrange(len(WORDS) - CHARACTERS) for _ in range(count)]
    return [" ".join(WORDS[start : start + CHARACTERS])[:CHARACTERS] for start in starts]


def grown(example: Mapping[str, Any], documents: Sequence[str]) -> dict[str, Any]:
    """A dialect's example with so many documents, all of whose results are wanted."""
    return {
        name: _grown(name, value, documents)
        for name, value in example.items()
        if name not in ("top_n", "top_k")
    }


def _grown(name: str, value: Any, documents: Sequence[str]) -> Any:
    match value:
        case [{"text": _, **others}, *_]:
            return [{"text": document, **others} for document in documents]
        case [str(), *_] if name != "rank_fields":
            return list(documents)
        case dict():
            return grown(value, documents)
    return value


# 1. The layer by itself.


@dataclass
class Ready:
    """In place of the ranker: its verdicts are there, and it notes when it was asked."""

    results: list[ScoredDocument]
    max_documents: int = 1000
    asked: float = 0.0

    @property
    def engine(self) -> Ready:
        return self

    @property
    def encoder(self) -> SimpleNamespace:
        return SimpleNamespace(template="0123456789ab")

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("fake", "model", "", "none", "none", 8192)

    async def rank_measured(
        self, asks: Sequence[RankRequest], on_result: object = None
    ) -> RankResult:
        self.asked = time.thread_time()
        return RankResult([self.results[: len(asks[0].documents)]], 0.01, 0.1, [1])


def results(count: int) -> list[ScoredDocument]:
    chance = random.Random(count)
    return [ScoredDocument(index, chance.uniform(-9, 9), 170, 105, 105) for index in range(count)]


@dataclass
class Arrived:
    """In place of a request whose body has been read, its prefix taken off."""

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
    print(layer(grown(_example(detect.ORDER[-1]), documents), repetitions).row("/v1/rerank"))
    for dialect in DIALECTS:
        body = grown(_example(dialect), documents)
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
    """One body through one dialect, many times; seconds.

    Attributes:
        sizes: bytes that came in and went out.
        reading: from bytes to an ask.
        writing: from verdicts to bytes.
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
    """The route's own code, from the bytes of a request to the bytes of its answer."""
    ready = Ready(results(1000))
    app = SimpleNamespace(state=SimpleNamespace(service=ModelService(cast(Any, ready), "model")))
    [route] = (route.endpoint for route in post_routes() if route.path == path)
    scope = {"path": path} | ({PREFIX: prefix} if prefix else {})
    raw, layer = orjson.dumps(body), Layer()
    for place in range(-repetitions // 10, repetitions):
        request = Arrived(raw, dict(scope), app)
        began = time.thread_time()
        response = _now(route(request))
        ended = time.thread_time()
        if place >= 0:  # The first ones warm up.
            layer.reading.append(ready.asked - began)
            layer.writing.append(ended - ready.asked)
    layer.sizes = len(raw), len(response.body)
    return layer


def _now(work: Any) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("it waits")


# 2. The whole path on one core, beside an echo.


def echo() -> FastAPI:
    """The least that FastAPI can do with such a body."""
    app = FastAPI()

    @app.post("/v1/rerank", response_model=None)
    async def route(request: Request) -> JSONResponse:
        return JSONResponse(await request.json())

    return app


def ready() -> FastAPI:
    """rankd without tokenizing, scoring and the ranker: the verdicts are there."""
    service = ModelService(cast(Any, Ready(results(1000))), "model")
    return build(service, Settings(engine="fake", access_log=False), KeyRing())


APPS = {"echo": echo, "ready": ready}


def be(name: str, fd: int) -> None:
    """Serve one of the apps, by uvicorn with the settings of `rankd serve`."""
    config = uvicorn.Config(
        APPS[name](),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
    )
    uvloop.run(uvicorn.Server(config).serve(sockets=[socket.socket(fileno=fd)]))


@contextmanager
def being(name: str) -> Iterator[tuple[int, str]]:
    """One of the apps as a process; its pid and address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, __file__, "--be", name, "--fd", str(fd)]
        process = subprocess.Popen(command, pass_fds=[fd])
        try:
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Everything in here, and every process started in here, runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class Round:
    """A few seconds of load on one server.

    Attributes:
        p50: of the latencies, in milliseconds.
        cpu: microseconds of the server for each request.
        server: share of its core that the server used; below 1, others did or it waited.
        generator: share of its core that the load generator used.
    """

    documents: float
    requests: float
    p50: float
    cpu: float
    server: float
    generator: float


async def load(pid: int, url: str, bodies: list[bytes], count: int, options: Any) -> Round:
    async def run(seconds: float) -> Load:
        done = Load(options.connections)
        until = time.perf_counter() + seconds
        clients = (client(url, bodies, one, until, done) for one in range(options.connections))
        await asyncio.gather(*clients)
        return done

    await run(0.3)
    began, cpu, own = time.perf_counter(), cpu_seconds(pid), time.process_time()
    done = await run(options.seconds)
    wall, cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu
    requests = len(done.latencies)
    return Round(
        documents=requests * count / wall,
        requests=requests / wall,
        p50=done.percentile(0.5),
        cpu=cpu / requests * 1e6,
        server=cpu / wall,
        generator=(time.process_time() - own) / wall,
    )


def compare(model: str, options: argparse.Namespace) -> None:
    here, there = sorted(os.sched_getaffinity(0))[:2]
    flags = [model, "--engine", "fake", "--self-check", "off", "--cache-mb", "0"]
    flags.append("--no-access-log")
    with (
        on_core(there),
        being("echo") as bare,
        being("ready") as layers_only,
        serving(*flags) as rankd,
        on_core(here),
    ):
        whole = (rankd.process.pid, rankd.url)
        servers = {ECHO: bare, "rankd, verdicts ready": layers_only, "rankd, fake engine": whole}
        for count in options.documents:
            bodies = [
                orjson.dumps({"query": f"{number}, what?", "documents": texts(count)})
                for number in range(100)
            ]
            rounds: dict[str, list[Round]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, (pid, url) in servers.items():
                    rounds[name].append(uvloop.run(load(pid, url, bodies, count, options)))
            _report(count, rounds, options)
        rankd.stop(signal.SIGTERM)


ECHO = "bare FastAPI, echo"


def _report(count: int, rounds: dict[str, list[Round]], options: argparse.Namespace) -> None:
    print(f"\nOne core, {count} documents a request, {options.connections} connections;", end=" ")
    print(f"medians of {options.rounds} rounds in turn, ratios paired by round:\n")
    print("| | documents/s | requests/s | p50 ms | to echo's ", end="")
    print("| CPU us/request | to echo's | server's core | generator's core |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, ours in rounds.items():
        pairs = list(zip(ours, rounds[ECHO], strict=True))
        print(
            f"| {name} | {_middle(one.documents for one in ours):,.0f} "
            f"| {_middle(one.requests for one in ours):,.0f} "
            f"| {_middle(one.p50 for one in ours):.1f} "
            f"| {_spread(one.requests / bare.requests for one, bare in pairs)} "
            f"| {_middle(one.cpu for one in ours):,.0f} "
            f"| {_spread(one.cpu / bare.cpu for one, bare in pairs)} "
            f"| {_middle(one.server for one in ours):.0%} "
            f"| {_middle(one.generator for one in ours):.0%} |"
        )


def _middle(numbers: Iterable[float]) -> float:
    return statistics.median(numbers)


def _spread(numbers: Iterable[float]) -> str:
    ordered = sorted(numbers)
    return f"{_middle(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


# 3. Where the time goes.


@dataclass
class Timers:
    """Seconds in each part of each request."""

    spent: dict[str, list[float]] = field(default_factory=dict)

    def around(self, owner: Any, name: str) -> None:
        """Time every call of one of an object's coroutines."""
        setattr(owner, name, self.timed(name, getattr(owner, name)))

    def timed(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        spent = self.spent.setdefault(name, [])

        async def clocked(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return await call(*arguments, **named)
            finally:
                spent.append(time.process_time() - began)

        return clocked

    def median(self, name: str) -> float:
        return statistics.median(self.spent[name]) * 1e6


async def split(model: str, count: int, repetitions: int) -> None:
    """The app called by hand, one request after another: no socket, no waiting."""
    body = {"query": "What?", "documents": texts(count)}
    settings = Settings(model=model, engine="fake", self_check="off", cache_mb=0, access_log=False)
    async with open_app(settings) as app:
        ranker, timers = app.state.service.ranker, Timers()
        timers.around(ranker, "rank_measured")
        timers.around(ranker.encoder, "encode")
        timers.around(ranker.engine, "score")
        [route] = (one for one in app.routes if getattr(one, "path", "") == "/v1/rerank")
        timers.around(route, "app")
        call = timers.timed("whole", app)
        for _ in range(repetitions):
            await call(*_scope(orjson.dumps(body)))
    names = ("whole", "app", "timed", "encode", "score")
    whole, routed, timed, encode, score = map(timers.median, names)
    print(f"\nOf {whole:,.0f} us of CPU in the app, {count} documents, one request at a time:\n")
    print("| part | us | share |")
    print("|---|---|---|")
    for name, part in {
        "tokenizing, a thread's round trip included": encode,
        "fake engine": score,
        "ranker: equal pairs, verdicts, counters": timed - encode - score,
        "dialect layer, Starlette's request and response": routed - timed,
        "door, FastAPI, finding the route": whole - routed,
    }.items():
        print(f"| {name} | {part:,.0f} | {part / whole:.0%} |")


def _scope(raw: bytes) -> tuple[dict[str, Any], Any, Any]:
    """A request as uvicorn hands it over; who sent it stays until it is answered."""
    messages = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        pass

    headers = [(b"host", b"bench"), (b"content-type", b"application/json")]
    headers.append((b"content-length", b"%d" % len(raw)))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/rerank",
        "raw_path": b"/v1/rerank",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    return scope, receive, send


if __name__ == "__main__":
    main()
