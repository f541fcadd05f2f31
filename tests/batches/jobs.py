"""Shared by the tests of batch jobs: an app with a directory, a client, a gate for its engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from fastapi import FastAPI

from rankd.batches import service
from rankd.config.settings import Settings
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt

Json = dict[str, Any]

DOCUMENTS = ["Gravity attracts two bodies.", "The capital of China is Beijing."]
ENDED = ("completed", "failed", "expired", "cancelled")


def line(name: str, url: str = "/v1/rerank", **body: Any) -> Json:
    """A valid line; `body` replaces fields of its request."""
    body = {"query": f"What is the capital of China, {name}?", "documents": DOCUMENTS} | body
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def jsonl(rows: Iterable[Json]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Client:
    """Calls an app in this event loop, with one key."""

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

    async def start_job(self, rows: Iterable[Json], **fields: Any) -> Json:
        """Upload these lines and create a job for them."""
        uploaded = await self.upload(jsonl(rows))
        assert uploaded.status_code == 200, uploaded.text
        created = await self.create(uploaded.json()["id"], **fields)
        assert created.status_code == 200, created.text
        return dict(created.json())

    async def get(self, path: str) -> Json:
        reply = await self.http.get(path)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def wait_until(self, name: str, condition: Callable[[Json], bool]) -> Json:
        """The job, once it meets a condition."""
        for _ in range(1000):
            job = await self.get(f"/v1/batches/{name}")
            if condition(job):
                return job
            await asyncio.sleep(0.02)
        raise AssertionError(f"the condition was never met: {job}")

    async def wait_until_ended(self, name: str) -> Json:
        return await self.wait_until(name, lambda job: job["status"] in ENDED)

    async def rows(self, file: str | None) -> list[Json]:
        """All rows of an output or error file."""
        assert file is not None
        reply = await self.http.get(f"/v1/files/{file}/content")
        assert reply.status_code == 200, reply.text
        return [json.loads(row) for row in reply.text.splitlines()]


@asynccontextmanager
async def open_client(directory: Path | None, **settings: Any) -> AsyncIterator[Client]:
    """An app on the fake engine, without a network; `directory` is its --batch-dir.

    Settings in lower case may also be constants of `batches/service.py`, such as `concurrency`.
    """
    names = ("JOB_LINES", "CONCURRENCY", "STORED_FILES")
    constants = {name: settings.pop(name.lower()) for name in names if name.lower() in settings}
    with ExitStack() as patches:
        for name, value in constants.items():
            patches.enter_context(mock.patch.object(service, name, value))
        async with open_app(Settings(engine="fake", batch_dir=directory, **settings)) as app:
            client = Client(app)
            async with client.http:
                yield client


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, at least ten seconds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition was never met")


class Gate:
    """An engine that holds calls back until they are released.

    Args:
        free: calls that are not held back.

    Attributes:
        calls: the priority of each call so far.
    """

    def __init__(self, scheduler: Scheduler, free: int = 0) -> None:
        self.engine = scheduler.engine
        self.calls: list[int] = []
        self._scheduler = scheduler
        self._free = asyncio.Semaphore(free)

    def release(self, count: int = 100_000) -> None:
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


def gate_engine(client: Client, free: int = 0) -> Gate:
    """Put a gate in front of the scheduler of an app."""
    ranker = client.app.state.service.ranker
    gate = Gate(ranker.scheduler, free)
    ranker.scheduler = gate
    return gate
