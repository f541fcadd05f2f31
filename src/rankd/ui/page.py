"""Which paths of Gradio's are served at `/ui`, and when Gradio is loaded."""

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
from rankd.errors import InternalError, NotFound, ShuttingDown, WrongMethod
from rankd.ranking.service import ModelService

_log = logging.getLogger("rankd")

ROOT = "/ui"

# All that the page fetches. Gradio has forty more paths: for files of the machine, uploads,
# other hosts, its own API; none of them is served.
_FILES = ("/assets/", "/static/", "/theme.css")
_EVENTS = re.compile(r"/gradio_api/run/\w+", re.ASCII)

# Scripts and styles of Gradio stand in its page and make functions of text; nothing may come
# from, or go to, anywhere else.
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
    """Whether a GET of it needs no key: the page itself, which holds nothing of the server's."""
    return path == ROOT or path.startswith(tuple(ROOT + file for file in _FILES))


def is_installed() -> bool:
    """Whether the page can be drawn here; where it cannot, `/ui` says what is missing."""
    return find_spec("gradio") is not None


def routes(app: ASGIApp, service: ModelService, settings: Settings) -> list[BaseRoute]:
    """What is served at `/ui`; nothing when the settings say so.

    Args:
        app: everything, its door included.
    """
    if not settings.ui:
        return []

    def build() -> ASGIApp:
        from rankd.ui.asgi_client import PageClient
        from rankd.ui.blocks import build
        from rankd.ui.events import Events

        return build(Events(PageClient(app), service, settings))

    page = Page(build, stopping=lambda: service.drain.begun)
    return [Route(ROOT, page), Mount(ROOT, page)]


class Page:
    """Gradio's page, loaded when it is first asked for: that takes seconds and memory, which a
    server that nobody visits does not spend.

    Attributes:
        path: as which visits are counted.
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
            raise NotFound("the page needs Gradio: pip install 'rankd[ui]' and start again")
        if self._stopping():
            raise ShuttingDown("the server is stopping; ask another, or this one later")
        self._refuse_others(scope["method"], path)
        if not path and not scope.get("raw_path", b"/").endswith(b"/"):
            # Relative: behind a proxy nobody but the browser knows the whole path.
            await RedirectResponse("ui/")(scope, receive, send)
            return
        gradio, page = await self._loaded()
        if not path:
            await Response(page, media_type="text/html", headers=_plain(_HEADERS))(
                scope, receive, send
            )
            return
        await gradio(_as_mounted(scope), receive, _guarded(send))

    def _refuse_others(self, method: str, path: str) -> None:
        is_event = _EVENTS.fullmatch(path)
        if not is_event and path and not path.startswith(_FILES):
            raise NotFound(f"nothing is served at {ROOT}{path[:80]}")
        if method not in (("POST",) if is_event else ("GET", "HEAD")):
            raise WrongMethod(f"{method} is not understood at {ROOT}{path[:80]}")

    async def _loaded(self) -> tuple[ASGIApp, bytes]:
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            self._loading = asyncio.create_task(self._load())
        # Whoever leaves does not stop it for the others.
        return await asyncio.shield(self._loading)

    async def _load(self) -> tuple[ASGIApp, bytes]:
        _log.info("loading the page, at its first visit")
        gradio = await asyncio.to_thread(self._build)
        return gradio, _own(await _got(gradio))


def _as_mounted(scope: Scope) -> Scope:
    """As Gradio expects it, whatever stands before it: a prefix is the browser's business."""
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


def _guarded(send: Send) -> Send:
    """Gradio lets pages of other origins read it; we do not."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                pair for pair in message["headers"] if not pair[0].startswith(b"access-control")
            ]
            message["headers"] = [*kept, *_HEADERS]
        await send(message)

    return guarded


async def _got(gradio: ASGIApp) -> str:
    """The HTML that Gradio makes; it is the same for everyone."""
    parts: list[bytes] = []
    path = f"{ROOT}/"
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"rankd")],
        "client": None,
        "server": ("rankd", 80),
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise InternalError("the page cannot be made; it has been logged")
        parts.append(message.get("body", b""))

    await gradio(scope, receive, send)
    return b"".join(parts).decode()


_CONFIG_END = "</script><script>window.gradio_api_info"
_IFRAMES = re.compile(r"<script>\s*\(\(\) => \{\s*const root = .*?</script>", re.DOTALL)
_STRANGERS = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>'
)


def _own(page: str) -> bytes:
    """Without what points elsewhere; where it lies is found out by the browser."""
    where = ';window.gradio_config.root=location.origin+location.pathname.replace(/\\/+$/,"");'
    frame = resources.files("rankd.ui").joinpath("frame.css").read_text(encoding="utf-8")
    page = _STRANGERS.sub("", _IFRAMES.sub("", page))
    page = page.replace(_CONFIG_END, where + _CONFIG_END, 1)
    return page.replace(
        "<head>", f'<head><link rel="icon" href="{_ICON}"><style>{frame}</style>', 1
    ).encode()


def _plain(headers: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
