"""Refuses requests that a web page of another origin makes a browser send."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rankd.errors import ForbiddenOrigin, RankError

# Browsers let pages of all origins send these; they change nothing and compute nothing.
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

# No page can have one of these as its name without being on this machine. A tunnel may connect to
# one of them for a client that names another.
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class AllowedHostsMiddleware:
    """Checks the headers by which browsers say where a request comes from.

    A page whose name was pointed at this machine's address after it was loaded (DNS rebinding)
    has its own name in `Host`. A page of another origin that sends a form or a file is named in
    `Origin`, and `Sec-Fetch-Site` is not `same-origin`. Other clients send neither of the two.

    Args:
        hosts: accepted in `Host`, in lower case and without a port, besides localhost, loopback
            addresses and the address that the client connected to; None: all. A request of
            HTTP/1.0 without `Host` is accepted, too: no browser sends one.
        origins: origins whose pages may send requests; `*` allows all.
        render: renders an error in the format of the request's API.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] | None,
        origins: Collection[str],
        render: Callable[[RankError, Scope], Response],
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await self._render(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> ForbiddenOrigin | None:
        host: str | None = None
        origin = site = ""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value.decode("latin-1").lower()
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                site = value.decode("latin-1")
        if self._hosts is not None and host is not None and not self._is_served(host, scope):
            return ForbiddenOrigin(
                f"Host {host[:200]!r} is not served; add its name to --allowed-hosts"
            )
        if (origin or site) and scope["method"] not in _SAFE_METHODS:
            return self._foreign(origin, site, host or "")
        return None

    def _is_served(self, host: str, scope: Scope) -> bool:
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit():
            name = host
        # A call inside the process has no server address.
        address, _ = scope.get("server") or (name, None)
        address = address.removeprefix("::ffff:")  # IPv4 on a listener for both.
        own = (*_LOOPBACK, address, f"[{address}]")
        return name in own or name in (self._hosts or ())

    def _foreign(self, origin: str, site: str, host: str) -> ForbiddenOrigin | None:
        if site in ("same-origin", "none") or "*" in self._origins or origin in self._origins:
            return None
        if not site and origin.lower().partition("://")[2] == host:
            return None
        return ForbiddenOrigin(
            f"a page of the origin {origin[:200]!r} sent this request; "
            "allow its origin with --cors-origins"
        )
