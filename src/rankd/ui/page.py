"""Routes of `/ui`: serves an allow-list of Gradio's paths, and loads Gradio on the first visit."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec

from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankd.config.settings import Settings
from rankd.dialects.asgi_client import AsgiClient
from rankd.errors import InternalError, NotFound, ShuttingDown, WrongMethod
from rankd.ranking.service import ModelService

_log = logging.getLogger("rankd")

ROOT = "/ui"

# Everything that the page fetches. Gradio has forty more paths: local files, uploads, a proxy
# to other hosts, its own API. They are not served.
_ASSETS = ("/assets/", "/static/", "/theme.css")
_EVENT_PATH = re.compile(r"/gradio_api/run/\w+", re.ASCII)

# Gradio needs inline scripts, inline styles and `eval`. Other origins are forbidden.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cg fill='%230d9488'%3E%3Cpath d='M1 2h14v3H1zM1 7h9v3H1zM1 12h5v3H1z'/%3E%3C/g%3E%3C/svg%3E"
)


def is_open(path: str) -> bool:
    """Whether a GET of this path needs no key: the page and its assets, which reveal nothing."""
    return path == ROOT or path.startswith(tuple(ROOT + asset for asset in _ASSETS))


def is_installed() -> bool:
    """Whether Gradio is installed; without it `/ui` is a 404 that says how to install it."""
    return find_spec("gradio") is not None


def routes(app: ASGIApp, service: ModelService, settings: Settings) -> list[BaseRoute]:
    """The routes at `/ui`; none with --no-ui.

    Args:
        app: the app with all its middleware, for the page's own requests.
    """
    if not settings.ui:
        return []

    def build() -> ASGIApp:
        from rankd.ui.answers import PageClient
        from rankd.ui.blocks import build
        from rankd.ui.events import Events

        return build(Events(PageClient(app), service, settings))

    page = Page(build, stopping=lambda: service.drain.begun)
    return [Route(ROOT, page), Mount(ROOT, page)]


class Page:
    """An ASGI app that loads Gradio on the first visit, which takes seconds and 100 MB.

    Args:
        build: makes Gradio's app; called once, in a thread.
        stopping: whether the server has begun to stop.

    Attributes:
        path: the route in metrics.
    """

    path = ROOT

    def __init__(self, build: Callable[[], ASGIApp], *, stopping: Callable[[], bool]) -> None:
        self._build = build
        self._stopping = stopping
        self._loading: asyncio.Task[tuple[ASGIApp, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        scope["endpoint"] = self
        path = scope["path"].removeprefix(ROOT)
        if not is_installed():
            raise NotFound("the page needs Gradio: pip install 'rankd[ui]' and restart the server")
        if self._stopping():
            raise ShuttingDown("the server is stopping; ask another, or this one later")
        self._check(scope["method"], path)
        if not path and not scope.get("raw_path", b"/").endswith(b"/"):
            # Relative, because a proxy may have taken a prefix off the path.
            await RedirectResponse("ui/")(scope, receive, send)
            return
        gradio, page = await self._loaded()
        if not path:
            await Response(page, media_type="text/html", headers=_as_text(_HEADERS))(
                scope, receive, send
            )
            return
        await gradio(_gradio_scope(scope), receive, _with_own_headers(send))

    def _check(self, method: str, path: str) -> None:
        """Raise NotFound or WrongMethod for what is not served."""
        is_event = _EVENT_PATH.fullmatch(path)
        if not is_event and path and not path.startswith(_ASSETS):
            raise NotFound(f"nothing is served at {ROOT}{path[:80]}")
        methods = ("POST",) if is_event else ("GET", "HEAD")
        if method not in methods:
            raise WrongMethod(
                f"{method} is not allowed at {ROOT}{path[:80]}; send {' or '.join(methods)}"
            )

    async def _loaded(self) -> tuple[ASGIApp, bytes]:
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(self._load())
        # A visitor who leaves must not cancel it for the others.
        return await asyncio.shield(self._loading)

    async def _load(self) -> tuple[ASGIApp, bytes]:
        _log.info("loading Gradio for the first visit of /ui")
        gradio = await asyncio.to_thread(self._build)
        return gradio, _patched(await _page_of(gradio))


def _gradio_scope(scope: Scope) -> Scope:
    """A scope without prefixes and forwarding headers; the browser knows the page's address."""
    return {
        "type": "http",
        "asgi": scope["asgi"],
        "http_version": scope["http_version"],
        "method": scope["method"],
        "scheme": scope["scheme"],
        "path": scope["path"],
        "raw_path": scope["path"].encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [pair for pair in scope["headers"] if not pair[0].startswith(b"x-forwarded-")],
        "client": scope["client"],
        "server": scope["server"],
        "state": {},
    }


def _with_own_headers(send: Send) -> Send:
    """Remove Gradio's CORS headers, which let other origins read, and add `_HEADERS`."""

    async def send_with_own(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                pair for pair in message["headers"] if not pair[0].startswith(b"access-control")
            ]
            message["headers"] = [*kept, *_HEADERS]
        await send(message)

    return send_with_own


async def _page_of(gradio: ASGIApp) -> str:
    """Gradio's HTML, which is the same for every visitor."""
    response = await AsgiClient(gradio).request("GET", f"{ROOT}/")
    if response.status != 200:
        raise InternalError("Gradio cannot render the page; the log has the reason")
    return response.body.decode()


_CONFIG_END = "</script><script>window.gradio_api_info"
_IFRAMES = re.compile(r"<script>\s*\(\(\) => \{\s*const root = .*?</script>", re.DOTALL)
_OUTSIDE_LINKS = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>'
)


def _patched(page: str) -> bytes:
    """Without links to other hosts, with our style; the browser sets the page's address."""
    set_root = ';window.gradio_config.root=location.origin+location.pathname.replace(/\\/+$/,"");'
    frame = resources.files("rankd.ui").joinpath("frame.css").read_text(encoding="utf-8")
    page = _OUTSIDE_LINKS.sub("", _IFRAMES.sub("", page))
    page = page.replace(_CONFIG_END, set_root + _CONFIG_END, 1)
    return page.replace(
        "<head>", f'<head><link rel="icon" href="{_ICON}"><style>{frame}</style>', 1
    ).encode()


def _as_text(headers: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
