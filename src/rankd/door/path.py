"""Paths as people mean them."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile("//+")

# A base URL that ends in `/v1`, and a client that adds its own.
_VERSIONS = re.compile(r"/v\d(?=/v\d/)")


class PlainPath:
    """Takes out what base URLs bring along: `//v1/rerank`, `/v1/rerank/`, `/v1/v2/rerank`.

    Half of the clients join a base URL and a path with a slash of their own, whether or
    not the base already ends in one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if "//" in path or (path.endswith("/") and path != "/"):
                path = _SLASHES.sub("/", path).rstrip("/") or "/"
            if "/v" in path:
                path = _VERSIONS.sub("", path)
            scope["path"] = path
        await self._app(scope, receive, send)
