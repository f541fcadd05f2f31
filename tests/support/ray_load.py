"""Load on a front, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from support.servers import Server, serving

WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")


def body(number: int) -> dict[str, Any]:
    """One of forty requests; each has scores of its own."""
    shift = number % 40
    documents = [
        " ".join(WORDS[(shift * 5 + index * 7 + word * word) % len(WORDS)] for word in range(30))
        for index in range(12)
    ]
    query = " ".join(WORDS[(shift + word) % len(WORDS)] for word in range(shift % 7 + 2))
    return {"query": query, "documents": documents}


@dataclass
class Load:
    """Clients that ask one request after the other until they are stopped.

    Attributes:
        answered: answers with status 200.
        lost: what came instead of an answer.
        wrong: answers with other scores than in the calm run.
        slowest: seconds.
    """

    url: str
    expected: dict[int, list[float]] = field(default_factory=dict)
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    slowest: float = 0.0

    async def calm_run(self) -> None:
        """The scores while nothing goes wrong."""
        async with httpx.AsyncClient(timeout=120) as client:
            for number in range(40):
                self.expected[number] = _scores(await client.post(self.url, json=body(number)))

    async def ask(self, client: httpx.AsyncClient, number: int) -> None:
        began = time.monotonic()
        try:
            response = await client.post(self.url, json=body(number))
            response.raise_for_status()
        except httpx.HTTPError as problem:
            self.lost.append(repr(problem))
            return
        self.answered += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        if _scores(response) != self.expected[number % 40]:
            self.wrong.append(number)

    async def keep_asking(self, first: int, done: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            number = first
            while not done.is_set():
                await self.ask(client, number)
                number += 1

    async def run(self, work: Any, clients: int = 8) -> None:
        """Ask while `work` runs, and until each client has its last answer."""
        done = asyncio.Event()
        asking = [asyncio.create_task(self.keep_asking(7 * one, done)) for one in range(clients)]
        try:
            await work
        finally:
            done.set()
            await asyncio.gather(*asking)


def _scores(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    results = sorted(response.json()["results"], key=lambda one: int(one["index"]))
    return [result["relevance_score"] for result in results]


@contextmanager
def front(address: str, *arguments: str) -> Iterator[Server]:
    """A server that scores on the cluster, without a cache."""
    ray = ("builtin", "--engine", "ray", "--ray-address", address, "--cache-mb", "0")
    with serving(*ray, *arguments) as server:
        yield server


def value_of(url: str, metric: str) -> float:
    """The sum of a metric's samples."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    lines = [line for line in text.splitlines() if line.partition("{")[0].split(" ")[0] == metric]
    assert lines, metric
    return sum(float(line.rpartition(" ")[2]) for line in lines)
