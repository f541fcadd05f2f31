"""Calls an ASGI app in this process, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True, slots=True)
class AsgiResponse:
    """A whole response.

    Attributes:
        status: the HTTP status; 500 if the app sent none.
        headers: by lower-case name; of a repeated header, the last value.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AsgiClient:
    """Sends requests to an app as a server would.

    Args:
        app: any ASGI app.
        scope: entries added to the scope of every request, such as `{"app": app}`.
    """

    app: ASGIApp
    scope: Mapping[str, Any] = field(default_factory=dict)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        scope: Mapping[str, Any] | None = None,
        disconnected: asyncio.Event | None = None,
    ) -> AsgiResponse:
        """Run the app in the current task and collect its response.

        Args:
            headers: sent besides `host` and `content-length`.
            scope: entries added to the scope of this request.
            disconnected: once set, the app receives `http.disconnect`; default: never.

        Raises:
            Exception: whatever the app raises.
        """
        left = disconnected or asyncio.Event()
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status, parts = 500, list[bytes]()
        response_headers: dict[str, str] = {}

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    response_headers[name.decode("latin-1").lower()] = value.decode("latin-1")
            else:
                parts.append(message.get("body", b""))

        request = _scope(method, path, len(body), headers or {})
        await self.app({**request, **self.scope, **(scope or {})}, receive, send)
        return AsgiResponse(status, b"".join(parts), response_headers)


def _scope(method: str, path: str, size: int, headers: Mapping[str, str]) -> Scope:
    sent = {"host": "rankd", "content-length": str(size), **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()
        ],
        "client": None,
        "server": None,
        "state": {},
    }
