"""Paths as people mean them."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile("//+")

# A base URL that ends in `/v1`, and a client that adds its own.
_VERSIONS = re.compile(r"/v\d(?=/v\d/)")


class PathPrefixMiddleware:
    """Takes out what base URLs bring along: `//v1/rerank`, `/v1/rerank/`, `/v1/v2/rerank`.

    Half of the clients join a base URL and a path with a slash of their own, whether or
    not the base already ends in one. A prefix that forces a dialect is taken off and
    noted, so that the same routes serve it.

    Args:
        prefixes: first segments of a path that are no part of it.
        note: where in the scope one is noted.
    """

    def __init__(self, app: ASGIApp, *, prefixes: Collection[str], note: str) -> None:
        self._app = app
        self._prefixes = prefixes
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = _normalized(scope["path"])
            first, _, rest = path[1:].partition("/")
            if first in self._prefixes:
                scope[self._note] = first
                path = _normalized(f"/{rest}")
            scope["path"] = path
        await self._app(scope, receive, send)


def _normalized(path: str) -> str:
    if "//" in path or path.endswith("/"):
        path = _SLASHES.sub("/", path).rstrip("/") or "/"
    return _VERSIONS.sub("", path) if path.startswith("/v") else path
