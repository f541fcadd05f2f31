"""Serves a fixed table of files. No part of a request ever becomes a path on disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from rankd.context import PART_OF_PAGE
from rankd.errors import NotFound, WrongMethod

# Other characters of an unknown path are left out of the error.
_MAX_SHOWN = 80

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


class FileTable:
    """An ASGI app that serves some files of this package.

    Args:
        path: the route in metrics.
        files: the rest of the URL behind the route → the file, relative to this package.
        policy: the `Content-Security-Policy` of all of them.
        slash: whether the URL of the file "" ends with a slash; the other URL redirects to it,
            because the links in the file are relative.
    """

    def __init__(
        self, path: str, files: Mapping[str, str], policy: str, *, slash: bool = False
    ) -> None:
        self.path = path
        self._files = files
        self._slash = slash
        self._headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            # A browser asks each time, so that an update is seen at once.
            "cache-control": "no-cache",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        name = scope["path_params"].get("name", "")
        file = self._files.get(name)
        # The route's pattern also matches a path with a line feed at its end.
        if file is None or scope["path"].endswith("\n"):
            raise NotFound(f"nothing is served at {scope['path'][:_MAX_SHOWN]}")
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(f"{scope['method']} is not allowed at {scope['path']}; send GET")
        if not name and scope["raw_path"].endswith(b"/") != self._slash:
            # Relative, because a proxy may have taken a prefix off the path.
            last = self.path.rpartition("/")[2]
            await RedirectResponse(f"{last}/" if self._slash else f"../{last}")(
                scope, receive, send
            )
            return
        if name:
            scope[PART_OF_PAGE] = True
        content, tag = _read(file)
        headers = {**self._headers, "etag": tag}
        if tag in Request(scope).headers.get("if-none-match", ""):
            response = Response(status_code=304, headers=headers)
        else:
            kind = _MEDIA_TYPES[file.rpartition(".")[2]]
            response = Response(content, headers=headers, media_type=kind)
        await response(scope, receive, send)


@cache
def _read(file: str) -> tuple[bytes, str]:
    """Content and entity tag."""
    content = resources.files("rankd.ui").joinpath(file).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:16]}"'
