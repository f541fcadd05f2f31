"""Asks the app from inside, through its whole front door: keys, limits and ids hold here, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Headers in which the page may bring a key, and what else the door should see.
_PASSED_ON = ("authorization", "x-api-key", "api-key")


class Refused(Exception):
    """The server did not answer; its sentence.

    Attributes:
        status: of HTTP.
        request_id: by which the log knows it.
    """

    def __init__(self, sentence: str, status: int, request_id: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class RerankAnswer:
    """What the server said to one request.

    Attributes:
        results: as in the body, best first.
        cached: indexes of documents whose score was computed for an earlier request.
        milliseconds: from the request to its answer.
    """

    results: list[dict[str, Any]]
    cached: frozenset[int]
    tokens: int
    warnings: list[str]
    milliseconds: float
    request_id: str


@dataclass(frozen=True)
class PageClient:
    """The app with everything that guards it."""

    app: ASGIApp

    async def rerank(self, body: dict[str, Any], headers: Mapping[str, str]) -> RerankAnswer:
        """One request to `/v1/rerank`, with the key of whoever uses the page.

        Raises:
            Refused: the server's own sentence.
        """
        passed = {name: headers[name] for name in _PASSED_ON if name in headers}
        # In lines each document says whether it was cached.
        passed |= {"accept": "application/x-ndjson", "content-type": "application/json"}
        began = time.perf_counter()
        reply = await self._asked(orjson.dumps(body), passed)
        milliseconds = (time.perf_counter() - began) * 1000
        request_id = reply.headers.get("x-request-id", "")
        *lines, last = [orjson.loads(line) for line in reply.content.splitlines() if line.strip()]
        if reply.status_code != 200 or "error" in last:
            status = reply.status_code if reply.status_code != 200 else last.get("status_code", 500)
            raise Refused(sentence(last), status, request_id)
        return RerankAnswer(
            results=last["results"],
            cached=frozenset(line["index"] for line in lines if line.get("cached")),
            tokens=last["usage"]["prompt_tokens"],
            warnings=last["meta"].get("warnings", []),
            milliseconds=milliseconds,
            request_id=request_id,
        )

    async def _asked(self, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Whoever leaves the page leaves here, too: a cancelled request would look like the
        server's end."""
        left = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            read = False

            async def heard() -> Message:
                nonlocal read
                if not read:
                    message = await receive()
                    read = not message.get("more_body", False)
                    return message
                await left.wait()
                return {"type": "http.disconnect"}

            await self.app(scope, heard, send)

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            asking = asyncio.ensure_future(
                client.post("/v1/rerank", content=content, headers=dict(headers), timeout=None)
            )
            try:
                return await asyncio.shield(asking)
            except asyncio.CancelledError:
                left.set()
                # There is no answer, which httpx takes for a fault of the app.
                await asyncio.gather(asking, return_exceptions=True)
                raise


def sentence(body: dict[str, Any]) -> str:
    """What an error body of rankd's own manner says."""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error or body.get("message")
    return str(said or "the server did not say why")
