"""Cost of HTTP and the dialects: alone, and on one core compared with a bare FastAPI app.

    python bench/dialects.py [--rounds 5] [--seconds 3] [--connections 8] [--against FOLDER]

1. The dialect layer alone: bytes in, bytes out, with prepared results.
2. Documents per second with the fake engine, server on one core and load on another, in turn
   with an app that parses and echoes the same body on the same uvicorn and core.
3. The parts of a request's time.

Documents are English, of 500 characters; scores are random. Needs two cores. With --against, 2 also
measures the rankd of another checkout (`git worktree add ../before v0.1.0`), in the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from dialect_layer import ReadyRanker, layers, results, texts
from server import ROOT, Load, client, cpu_seconds

sys.path.insert(0, str(ROOT / "tests"))

from rankd.config.settings import Settings
from rankd.ranking.service import ModelService
from rankd.server.app import build, open_app
from rankd.server.middleware import KeyRing
from support.checkpoints import make_checkpoint
from support.servers import serving


def main() -> None:
    options = _options()
    if options.be:
        return serve_app(options.be, options.fd)
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs two cores: one for the server, one for the load")
    if options.only in (None, 1):
        layers(options.repetitions)
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        # Only its tokenizer is used.
        model = str(make_checkpoint(Path(folder) / "model", hidden=32, layers=1, heads=1))
        if options.only in (None, 2):
            compare(model, options)
        if options.only in (None, 3):
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
    parser.add_argument("--against", type=Path, help="folder of another checkout of rankd")
    parser.add_argument("--only", type=int, choices=[1, 2, 3], help="of the parts")
    # For the servers that this program starts.
    parser.add_argument("--be", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


# 2. The whole path on one core, compared with an echo.


def echo() -> FastAPI:
    """The minimum that FastAPI can do with such a body."""
    app = FastAPI()

    @app.post("/v1/rerank", response_model=None)
    async def route(request: Request) -> JSONResponse:
        return JSONResponse(await request.json())

    return app


def ready() -> FastAPI:
    """rankd without tokenizer, engine and ranker: the results are prepared."""
    service = ModelService(cast(Any, ReadyRanker(results(1000))), "model")
    return build(service, Settings(engine="fake", access_log=False), KeyRing())


APPS = {"echo": echo, "ready": ready}


def serve_app(name: str, fd: int) -> None:
    """Serve one of the apps with uvicorn, set up as in `rankd serve`."""
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
def app_process(name: str) -> Iterator[tuple[int, str]]:
    """Run one of the apps as a process; yields its pid and URL."""
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
    """Pin this process, and the processes it starts, to one core."""
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
        documents, requests: per second.
        p50: median latency, in milliseconds.
        cpu: CPU of the server per request, in microseconds.
        server: share of its core that the server used.
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
    with ExitStack() as running:
        running.enter_context(on_core(there))
        servers = {
            ECHO: running.enter_context(app_process("echo")),
            "rankd, prepared results": running.enter_context(app_process("ready")),
        }
        for name, source in _sources(options.against).items():
            rankd = running.enter_context(serving(*flags, PYTHONPATH=str(source)))
            servers[name] = (rankd.process.pid, rankd.url)
        running.enter_context(on_core(here))
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


ECHO = "bare FastAPI, echo"
RANKD = "rankd, fake engine"
AGAINST = "the other rankd, fake engine"


def _sources(against: Path | None) -> dict[str, Path]:
    """The packages that are measured, by the name of their row."""
    own = {RANKD: ROOT / "src"}
    return own if against is None else own | {AGAINST: against.absolute() / "src"}


def _report(count: int, rounds: dict[str, list[Round]], options: argparse.Namespace) -> None:
    print(f"\nOne core, {count} documents a request, {options.connections} connections;", end=" ")
    print(f"medians of {options.rounds} interleaved rounds, ratios paired by round:\n")
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
    if AGAINST in rounds:
        pairs = list(zip(rounds[RANKD], rounds[AGAINST], strict=True))
        print(f"\nCPU of this rankd to the other's: {_spread(a.cpu / b.cpu for a, b in pairs)}")


def _middle(numbers: Iterable[float]) -> float:
    return statistics.median(numbers)


def _spread(numbers: Iterable[float]) -> str:
    ordered = sorted(numbers)
    return f"{_middle(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


# 3. The parts of a request's time.


@dataclass
class Timers:
    """Seconds spent in each part of each request."""

    spent: dict[str, list[float]] = field(default_factory=dict)

    def around(self, owner: Any, name: str) -> None:
        """Time every call of a coroutine function of an object."""
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
    """Call the app directly, one request after another, without a socket."""
    body = {"query": "What?", "documents": texts(count)}
    settings = Settings(model=model, engine="fake", self_check="off", cache_mb=0, access_log=False)
    async with open_app(settings) as app:
        ranker, timers = app.state.service.ranker, Timers()
        timers.around(ranker, "rank_measured")
        timers.around(ranker.encoder, "encode")
        timers.around(ranker.scheduler, "score")
        [route] = (one for one in app.routes if getattr(one, "path", "") == "/v1/rerank")
        timers.around(route, "app")
        call = timers.timed("whole", app)
        for _ in range(repetitions):
            await call(*_scope(orjson.dumps(body)))
    names = ("whole", "app", "rank_measured", "encode", "score")
    whole, routed, ranked, encode, score = map(timers.median, names)
    print(f"\nOf {whole:,.0f} us of CPU in the app, {count} documents, one request at a time:\n")
    print("| part | us | share |")
    print("|---|---|---|")
    for name, part in {
        "tokenizing, including a thread's round trip": encode,
        "scheduler, fake engine": score,
        "ranker: equal pairs, results, counters": ranked - encode - score,
        "dialect layer, Starlette's request and response": routed - ranked,
        "middleware, FastAPI, routing": whole - routed,
    }.items():
        print(f"| {name} | {part:,.0f} | {part / whole:.0%} |")


def _scope(raw: bytes) -> tuple[dict[str, Any], Any, Any]:
    """A request as uvicorn passes it. The client stays connected until the response."""
    messages = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        pass

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
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
