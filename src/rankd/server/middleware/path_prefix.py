"""Normalizes request paths: root path, the prefix that selects a dialect, doubled pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.context import PREFIX

_SLASHES = re.compile("//+")

# `/v1` of a base URL, followed by the version that the client adds itself.
_VERSIONS = re.compile(r"/v\d(?=/v\d/)")


_WARNINGS = b"x-rankd-warnings"


class PathPrefixMiddleware:
    """Cleans up joined paths such as `//v1/rerank`, `/v1/rerank/` and `/v1/v2/rerank`.

    Many clients join a base URL and a path with another slash, or add a version of their own
    to a base URL that ends in one. A prefix that selects a dialect is removed from the path
    and stored in the scope, so that one set of routes serves every prefix.

    A POST to an unknown path goes to the path that it means, if that is certain; a warning in
    the response says so. Keys, limits and metrics see the path that it is sent to.

    Args:
        prefixes: first path segments to remove; the removed one is stored under `PREFIX`.
        known: paths that are never corrected.
        corrected: the prefix and path that an unknown path with a prefix means, or None.
        root_path: the server's place behind a proxy that does not remove it, such as `/rank`;
            paths without it are served, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefixes: Collection[str],
        known: Collection[str],
        corrected: Callable[[str, str | None], tuple[str | None, str] | None],
        root_path: str = "",
    ) -> None:
        self._app = app
        self._prefixes = prefixes
        self._known = known
        self._corrected = corrected
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = _normalized(scope["path"])
            if self._root_path and f"{path}/".startswith(f"{self._root_path}/"):
                path = _normalized(path.removeprefix(self._root_path) or "/")
            first, _, rest = path[1:].partition("/")
            if first in self._prefixes:
                scope[PREFIX] = first
                path = _normalized(f"/{rest}")
            if path not in self._known and scope["method"] == "POST":
                path, send = self._correct(scope, path, send)
            scope["path"] = path
        await self._app(scope, receive, send)

    def _correct(self, scope: Scope, path: str, send: Send) -> tuple[str, Send]:
        """The path that an unknown path means, and `send` with a warning about it."""
        if b"%" in scope.get("raw_path", b""):
            return path, send  # An escaped slash is no slash to the proxies in front.
        if (meant := self._corrected(path, scope.get(PREFIX))) is None:
            return path, send
        prefix, target = meant
        served = target
        if prefix is not None:
            scope[PREFIX] = prefix
            served = f"/{prefix}{target}"
        return target, _warning_of(
            f"POST {scope['path']} was read as POST {served}: correct the client's base URL", send
        )


def _warning_of(warning: str, send: Send) -> Send:
    """`send` with another warning in the header for warnings."""

    async def send_with_warning(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            warnings = [warning.encode("ascii")]
            warnings += [value for name, value in headers if name == _WARNINGS]
            others = [header for header in headers if header[0] != _WARNINGS]
            message["headers"] = [*others, (_WARNINGS, b"; ".join(warnings))]
        await send(message)

    return send_with_warning


def _normalized(path: str) -> str:
    if "//" in path or path.endswith("/"):
        path = _SLASHES.sub("/", path).rstrip("/") or "/"
    return _VERSIONS.sub("", path) if path.startswith("/v") else path
