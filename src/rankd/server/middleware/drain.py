"""Adds `Connection: close` to responses while the server stops."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.ranking.service import Drain

_CLOSE = (b"connection", b"close")


class DrainMiddleware:
    """Closes each connection after its response, so that clients connect to another server.

    Args:
        drain: its `begun` is true once the server was asked to stop.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                others = [header for header in message["headers"] if header[0] != b"connection"]
                message["headers"] = [*others, _CLOSE]
            await send(message)

        await self._app(scope, receive, send_closing)
