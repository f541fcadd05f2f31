"""What tests of batch jobs share: an app with a directory, and how one uploads, waits and reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from rankd.config.settings import Settings
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt

Json = dict[str, Any]

DOCUMENTS = ["Gravity attracts two bodies.", "The capital of China is Beijing."]
ENDED = ("completed", "failed", "expired", "cancelled")


def line(name: str, url: str = "/v1/rerank", **body: Any) -> Json:
    """A good request, unless told otherwise."""
    body = {"query": f"What is the capital of China, {name}?", "documents": DOCUMENTS} | body
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def jsonl(rows: Iterable[Json]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Client:
    """Calls an app in this loop, as one key's owner."""

    def __init__(self, app: FastAPI, key: str = "") -> None:
        self.app = app
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://rankd",
            headers={"authorization": f"Bearer {key}"} if key else {},
        )

    async def upload(self, content: bytes, **fields: str) -> httpx.Response:
        return await self.http.post(
            "/v1/files",
            files={"file": ("requests.jsonl", content)},
            data={"purpose": "batch"} | fields,
        )

    async def create(self, file: str, **fields: Any) -> httpx.Response:
        body = {"input_file_id": file, "endpoint": "/v1/rerank", "completion_window": "24h"}
        return await self.http.post("/v1/batches", json=body | fields)

    async def begin(self, rows: Iterable[Json], **fields: Any) -> Json:
        """A job of these lines."""
        uploaded = await self.upload(jsonl(rows))
        assert uploaded.status_code == 200, uploaded.text
        created = await self.create(uploaded.json()["id"], **fields)
        assert created.status_code == 200, created.text
        return dict(created.json())

    async def get(self, path: str) -> Json:
        reply = await self.http.get(path)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def until(self, name: str, wanted: Callable[[Json], bool]) -> Json:
        """The job, once it is as wanted."""
        for _ in range(1000):
            job = await self.get(f"/v1/batches/{name}")
            if wanted(job):
                return job
            await asyncio.sleep(0.02)
        raise AssertionError(f"still {job}")

    async def ended(self, name: str) -> Json:
        return await self.until(name, lambda job: job["status"] in ENDED)

    async def rows(self, file: str | None) -> list[Json]:
        """What stands in a file of a job."""
        assert file is not None
        reply = await self.http.get(f"/v1/files/{file}/content")
        assert reply.status_code == 200, reply.text
        return [json.loads(row) for row in reply.text.splitlines()]


@asynccontextmanager
async def opened(directory: Path | None, **settings: Any) -> AsyncIterator[Client]:
    """A server without a network, that keeps its jobs in a directory."""
    async with open_app(Settings(engine="fake", batch_dir=directory, **settings)) as app:
        client = Client(app)
        async with client.http:
            yield client


async def holds(condition: Callable[[], bool]) -> None:
    """Wait until it does."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


class Gate:
    """An engine that scores only so many calls until it is let on.

    Attributes:
        calls: the priority of each call that came.
    """

    def __init__(self, scheduler: Scheduler, free: int = 0) -> None:
        self.engine = scheduler.engine
        self.calls: list[int] = []
        self._scheduler = scheduler
        self._free = asyncio.Semaphore(free)

    def let_on(self, count: int = 100_000) -> None:
        for _ in range(count):
            self._free.release()

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, **options: Any
    ) -> list[float]:
        self.calls.append(priority)
        await self._free.acquire()
        return await self._scheduler.score(prompts, priority=priority, **options)

    async def check(self) -> None:
        await self._scheduler.check()


def gated(client: Client, free: int = 0) -> Gate:
    """Put a gate before the scheduler of an app."""
    ranker = client.app.state.service.ranker
    gate = Gate(ranker.scheduler, free)
    ranker.scheduler = gate
    return gate
