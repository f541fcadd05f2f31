"""Asks the app from inside, through its whole front door: keys, limits and ids hold here, too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.types import ASGIApp

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
class Answer:
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
class FrontDoor:
    """The app with everything that guards it."""

    app: ASGIApp

    async def rerank(self, body: dict[str, Any], headers: Mapping[str, str]) -> Answer:
        """One request to `/v1/rerank`, with the key of whoever uses the page.

        Raises:
            Refused: the server's own sentence.
        """
        passed = {name: headers[name] for name in _PASSED_ON if name in headers}
        # In lines each document says whether it was cached.
        passed |= {"accept": "application/x-ndjson", "content-type": "application/json"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        began = time.perf_counter()
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            reply = await client.post(
                "/v1/rerank", content=orjson.dumps(body), headers=passed, timeout=None
            )
        milliseconds = (time.perf_counter() - began) * 1000
        request_id = reply.headers.get("x-request-id", "")
        *lines, last = [orjson.loads(line) for line in reply.content.splitlines() if line.strip()]
        if reply.status_code != 200 or "error" in last:
            status = reply.status_code if reply.status_code != 200 else last.get("status_code", 500)
            raise Refused(sentence(last), status, request_id)
        return Answer(
            results=last["results"],
            cached=frozenset(line["index"] for line in lines if line.get("cached")),
            tokens=last["usage"]["prompt_tokens"],
            warnings=last["meta"].get("warnings", []),
            milliseconds=milliseconds,
            request_id=request_id,
        )


def sentence(body: dict[str, Any]) -> str:
    """What an error body of rankd's own manner says."""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error or body.get("message")
    return str(said or "the server did not say why")
