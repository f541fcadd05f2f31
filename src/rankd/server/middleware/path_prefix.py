"""Normalizes request paths and removes the prefix that selects a dialect."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from rankd.context import PREFIX

_SLASHES = re.compile("//+")

# `/v1` of a base URL, followed by the version that the client adds itself.
_VERSIONS = re.compile(r"/v\d(?=/v\d/)")


class PathPrefixMiddleware:
    """Cleans up joined paths such as `//v1/rerank`, `/v1/rerank/` and `/v1/v2/rerank`.

    Many clients join a base URL and a path with another slash, or add a version of their own
    to a base URL that ends in one. A prefix that selects a dialect is removed from the path
    and stored in the scope, so that one set of routes serves every prefix.

    Args:
        prefixes: first path segments to remove; the removed one is stored under `PREFIX`.
    """

    def __init__(self, app: ASGIApp, *, prefixes: Collection[str]) -> None:
        self._app = app
        self._prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = _normalized(scope["path"])
            first, _, rest = path[1:].partition("/")
            if first in self._prefixes:
                scope[PREFIX] = first
                path = _normalized(f"/{rest}")
            scope["path"] = path
        await self._app(scope, receive, send)


def _normalized(path: str) -> str:
    if "//" in path or path.endswith("/"):
        path = _SLASHES.sub("/", path).rstrip("/") or "/"
    return _VERSIONS.sub("", path) if path.startswith("/v") else path
