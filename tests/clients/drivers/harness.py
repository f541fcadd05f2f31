"""Shared by all drivers: registers a client's cases, runs them, prints one JSON line per case.

Runs in the client's environment, so it imports only the standard library.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

QUERY = "What is the capital of China?"
GRAVITY = "Gravity is a force that attracts two bodies towards each other."
BEIJING = "The capital of China is Beijing."
BREAD = "Bread is made of flour."
# The relevant document is neither first nor last, so neither the order of the request nor its
# reverse passes for a ranking.
DOCUMENTS = [GRAVITY, BEIJING, BREAD]
BEST = 1
# The server's message about an empty query.
SENTENCE = "query must not be empty"
# A client that retries waits at least this long, in seconds.
PATIENCE = 20

MODEL = "Qwen/Qwen3-Reranker-0.6B"


@dataclass
class Wire:
    """A proxy's address, and the requests it passed on, as `METHOD /path`."""

    url: str
    requests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """The addresses of two rankd servers: one without a key, and one that requires `key`."""

    url: str
    keyed: str
    key: str

    @property
    def with_password(self) -> str:
        """For clients without a field for a key."""
        return self.keyed.replace("://", f"://key:{self.key}@")

    @contextmanager
    def watched(self, keyed: bool = False) -> Iterator[Wire]:
        """A TCP proxy in front of the server that records the requests."""
        host, _, port = (self.keyed if keyed else self.url).removeprefix("http://").partition(":")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            wire = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}")
            serve = threading.Thread(
                target=_accept, args=(listener, (host, int(port)), wire), daemon=True
            )
            serve.start()
            yield wire


def _accept(listener: socket.socket, target: tuple[str, int], wire: Wire) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        upstream = socket.create_connection(target)
        for source, sink, recorder in (client, upstream, wire), (upstream, client, None):
            threading.Thread(target=_pass, args=(source, sink, recorder), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, wire: Wire | None) -> None:
    try:
        while chunk := source.recv(65536):
            if wire:
                lines = re.findall(rb"^([A-Z]+ \S+) HTTP/1\.1\r$", chunk, re.MULTILINE)
                wire.requests += [line.decode() for line in lines]
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@dataclass(frozen=True)
class Case:
    client: str
    package: str
    dialect: str
    run: Callable[..., Any]


CASES: list[Case] = []


def case(client: str, package: str, dialect: str) -> Callable[[Callable[..., Any]], Any]:
    """Registers a function as a case; it passes if it returns.

    Args:
        client: the client's name for users.
        package: the distribution whose version is reported.
        dialect: the vendor's API that it uses.
    """

    def keep(run: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Case(client, package, dialect, run))
        return run

    return keep


def each(client: str, package: str, dialect: str, **arguments: Any) -> None:
    """Registers several cases of one client: `arguments` are functions by case name."""
    for name, run in arguments.items():
        run.__name__ = name
        CASES.append(Case(client, package, dialect, run))


def eq(got: Any, want: Any, what: str = "") -> None:
    """Asserts that both are equal; the error shows both."""
    assert got == want, f"{what or 'got'} {got!r}, wanted {want!r}"


def ranked(indexes: list[int], scores: list[float], count: int = len(DOCUMENTS)) -> None:
    """Asserts `count` results with the best document first and descending scores."""
    eq(len(indexes), count, "results")
    eq(len(scores), count, "scores")
    eq(indexes[0], BEST, "first index")
    eq(len(set(indexes)), count, "different indexes")
    assert set(indexes) <= set(range(len(DOCUMENTS))), indexes
    eq(scores, sorted(scores, reverse=True), "scores")
    assert all(isinstance(score, float) for score in scores), scores
    assert scores[0] > 0.5, scores
    assert all(0 <= score < 0.5 for score in scores[1:]), scores


def ranked_texts(texts: list[str], count: int = len(DOCUMENTS)) -> None:
    """As `ranked`, for clients that return documents without scores."""
    eq(len(texts), count, "documents")
    eq(texts[0], BEIJING, "first document")
    assert set(texts) <= set(DOCUMENTS), texts


@contextmanager
def refused(
    kind: type[BaseException] | tuple[type[BaseException], ...], *words: str
) -> Iterator[list[BaseException]]:
    """Asserts that the client raises `kind`, with `words` in its message, and without retries.

    Yields a list that contains the exception after the block.
    """
    caught: list[BaseException] = []
    began = time.monotonic()
    try:
        yield caught
    except kind as error:
        caught.append(error)
    took = time.monotonic() - began
    assert caught, f"no {kind}"
    message = f"{caught[0]} {getattr(caught[0], 'body', '')}"
    for word in words:
        assert word in message, f"{word!r} is not in {type(caught[0]).__name__}: {message[:400]}"
    assert took < PATIENCE, f"took {took:.1f} s"


def main() -> None:
    """Run the cases: `driver.py URL KEYED_URL KEY`."""
    server = Server(*sys.argv[1:4])
    for entry in CASES:
        detail = ""
        began = time.monotonic()
        try:
            done = entry.run(server)
            if inspect.isawaitable(done):
                asyncio.run(_await(done))
        except Exception as error:
            # Every exception of a client is a failed case.
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if "drivers" in frame.filename]
            detail = f"{type(error).__name__}: {error} (line {lines[-1] if lines else '?'})"
        line = {
            "client": entry.client,
            "version": version(entry.package),
            "dialect": entry.dialect,
            "case": entry.run.__name__,
            "pass": not detail,
            "detail": detail[:2000],
            "seconds": round(time.monotonic() - began, 2),
        }
        # Some clients print without a final newline, so the line starts with one.
        sys.stdout.write("\n" + json.dumps(line) + "\n")
        sys.stdout.flush()


async def _await(done: Any) -> Any:
    return await done
