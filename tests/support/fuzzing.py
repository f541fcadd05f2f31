"""Sends fuzzed requests to a server, and judges its answers and its health meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import islice
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

from support.fuzz_bodies import FuzzedRequest, fuzzed_requests


@dataclass
class FuzzReport:
    """What came of the requests.

    Attributes:
        statuses: answers by status.
        faults: a sentence for each thing that must not happen.
        slowest: seconds of the slowest answer.
        slowest_livez: seconds of the slowest `/livez`.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_livez: float = 0.0
    probes: int = 0

    def slow(self) -> list[str]:
        """A sentence for each time that is too long on a machine without other work."""
        times = {"an answer": (self.slowest, 5.0), "/livez": (self.slowest_livez, 1.0)}
        return [
            f"{what} took {seconds:.2f} s; the limit is {limit:g}"
            for what, (seconds, limit) in times.items()
            if seconds > limit
        ]

    def __str__(self) -> str:
        statuses = ", ".join(
            f"{count:,} {status}" for status, count in sorted(self.statuses.items())
        )
        return (
            f"{self.statuses.total():,} answers: {statuses}; slowest {self.slowest:.2f} s; "
            f"/livez {self.probes:,} times, slowest {self.slowest_livez:.3f} s; "
            f"{len(self.faults)} faults"
        )


def fuzz(url: str, *, seed: int, count: int, clients: int = 4) -> FuzzReport:
    """Send `count` requests over some connections that are kept open."""
    report, address = FuzzReport(), url.removeprefix("http://")
    requests = fuzzed_requests(seed, count)
    lock = threading.Lock()

    def client() -> None:
        connection = HTTPConnection(address, timeout=60)
        while True:
            with lock:
                batch = [*islice(requests, 20)]
            if not batch:
                connection.close()
                return
            for request in batch:
                _send(connection, request, report)

    with _probing(address, report), ThreadPoolExecutor(clients) as pool:
        for task in [pool.submit(client) for _ in range(clients)]:
            task.result()
    return report


def _send(connection: HTTPConnection, request: FuzzedRequest, report: FuzzReport) -> None:
    began = time.monotonic()
    try:
        headers = {name: value.encode("latin-1") for name, value in request.headers.items()}
        connection.request("POST", request.path, request.body, headers)
        reply = connection.getresponse()
        answer = reply.read()
    except (OSError, HTTPException) as problem:
        connection.close()
        report.faults.append(f"{type(problem).__name__} {_described(request)}")
        return
    seconds = time.monotonic() - began
    report.statuses[reply.status] += 1
    report.slowest = max(report.slowest, seconds)
    for fault in _faults(request, reply.status, reply.getheader("content-type") or "", answer):
        report.faults.append(f"{fault} {_described(request)}")


def _faults(request: FuzzedRequest, status: int, media_type: str, answer: bytes) -> Iterator[str]:
    if status >= 500 and not (status == 504 and request.may_time_out):
        yield f"status {status}: {answer[:200]!r}"
    if media_type == "application/x-ndjson":
        answer = answer.rstrip().rpartition(b"\n")[2]
    try:
        value = json.loads(answer)
    except ValueError:
        yield f"not JSON: {answer[:200]!r}"
        return
    if status != 200 and not (isinstance(value, dict) and {"message", "error"} <= value.keys()):
        yield f"an error of another form: {answer[:200]!r}"
    if status == 422:
        yield "status 422"


def _described(request: FuzzedRequest) -> str:
    return (
        f"at {request.path}, {'+'.join(request.damage)}, {request.headers}: {request.body[:300]!r}"
    )


@contextmanager
def _probing(address: str, report: FuzzReport) -> Iterator[None]:
    """Ask /livez all the time, from a process of its own: this one makes bodies."""
    context = get_context("spawn")
    left, results = context.Event(), context.SimpleQueue()
    process = context.Process(target=_probe, args=(address, left, results))
    process.start()
    try:
        yield
    finally:
        left.set()
        for status, seconds in results.get():
            report.probes += 1
            report.slowest_livez = max(report.slowest_livez, seconds)
            if status != 200:
                report.faults.append(f"/livez: {status} after {seconds:.2f} s")
        process.join()


def _probe(address: str, left: Event, results: SimpleQueue[list[tuple[int, float]]]) -> None:
    """Puts the status and the seconds of every probe at the end."""
    connection, probes = HTTPConnection(address, timeout=60), []
    while not left.wait(0.02):
        began = time.monotonic()
        connection.request("GET", "/livez")
        reply = connection.getresponse()
        reply.read()
        probes.append((reply.status, time.monotonic() - began))
    connection.close()
    results.put(probes)
