"""Sends the page's requests to `/v1/rerank` and reads the answers.

They pass all middleware of the app, so keys, limits and request ids apply to them too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp

from rankd.dialects.asgi_client import AsgiClient, AsgiResponse

# Headers that may hold the key.
_KEY_HEADERS = ("authorization", "x-api-key", "api-key")


class PageError(Exception):
    """The server did not answer with scores.

    Attributes:
        message: the server's own.
        status: of HTTP.
        request_id: as in the log.
    """

    def __init__(self, message: str, status: int, request_id: str) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class RerankAnswer:
    """The answer to one request.

    Attributes:
        results: objects of `results` in the body, best first.
        cached: indices of documents whose score came from the cache.
        tokens: `usage.prompt_tokens` of the body.
        milliseconds: from request to answer, inside the server.
    """

    results: list[dict[str, Any]]
    cached: frozenset[int]
    tokens: int
    warnings: list[str]
    milliseconds: float
    request_id: str


@dataclass(frozen=True)
class PageClient:
    """Calls `/v1/rerank`.

    Args:
        app: the app with all its middleware.
    """

    app: ASGIApp

    async def rerank(self, body: dict[str, Any], headers: Mapping[str, str]) -> RerankAnswer:
        """Send one request.

        Args:
            headers: of the browser's request; only the key is passed on.

        Raises:
            PageError: the server refused it, or failed.
        """
        sent = {name: headers[name] for name in _KEY_HEADERS if name in headers}
        # Only the stream of lines says which documents came from the cache.
        sent |= {"accept": "application/x-ndjson", "content-type": "application/json"}
        start = time.perf_counter()
        response = await self._post(orjson.dumps(body), sent)
        milliseconds = (time.perf_counter() - start) * 1000
        request_id = response.headers.get("x-request-id", "")
        *lines, last = [orjson.loads(line) for line in response.body.splitlines() if line.strip()]
        if response.status != 200 or "error" in last:
            status = response.status if response.status != 200 else last.get("status_code", 500)
            raise PageError(error_message(last), status, request_id)
        return RerankAnswer(
            results=last["results"],
            cached=frozenset(line["index"] for line in lines if line.get("cached")),
            tokens=last["usage"]["prompt_tokens"],
            warnings=last["meta"].get("warnings", []),
            milliseconds=milliseconds,
            request_id=request_id,
        )

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> AsgiResponse:
        """Turn a cancellation into a disconnect, as when any client leaves.

        The app logs a disconnect as 499. A cancellation would look like a stop of the server.
        """
        disconnected = asyncio.Event()
        client = AsgiClient(self.app)
        # A task of its own: the app sets context variables, such as the request id.
        response = asyncio.ensure_future(
            client.request("POST", "/v1/rerank", body, headers, disconnected=disconnected)
        )
        try:
            return await asyncio.shield(response)
        except asyncio.CancelledError:
            disconnected.set()
            await asyncio.gather(response, return_exceptions=True)
            raise


def error_message(body: dict[str, Any]) -> str:
    """The message of an error body in any format."""
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else error or body.get("message")
    return str(message or "the server gave no reason; see its log")
