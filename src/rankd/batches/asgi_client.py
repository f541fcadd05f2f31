"""A request that comes from inside: the app answers it as if it had come over the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from rankd.context import BATCH, CALLER, REQUEST_ID


@dataclass(frozen=True, slots=True)
class AsgiResponse:
    """What the app said."""

    status: int
    body: bytes


@dataclass(frozen=True)
class AsgiClient:
    """The app behind the door.

    Args:
        app: routes and their errors; what it raises nevertheless is a bug.
        scope: what the app expects in every scope.
    """

    app: ASGIApp
    scope: dict[str, Any]

    async def post(self, path: str, body: bytes, *, caller: str, request_id: str) -> AsgiResponse:
        """Ask in the background; raises whatever bug the app has."""
        REQUEST_ID.set(request_id)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "client": None,
            "server": None,
            "state": {},
            BATCH: True,
            CALLER: caller,
            **self.scope,
        }
        status = 500
        parts: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return AsgiResponse(status, b"".join(parts))
