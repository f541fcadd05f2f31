"""The web page `/ui`: its files, and what it is told about the server."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rankd import __version__
from rankd.config.settings import Settings
from rankd.models.checkpoint import BUILTIN
from rankd.ranking.service import ModelService
from rankd.ui.files import FileTable

ROOT = "/ui"

# Nothing from other origins, no inline script or style, and no text that becomes markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)

_FILES = {
    "": "static/index.html",
    **{
        file.name: f"static/{file.name}"
        for file in resources.files("rankd.ui").joinpath("static").iterdir()
        if file.name != "index.html"
    },
}

_PATHS = frozenset({ROOT, *(f"{ROOT}/{name}" for name in _FILES)})


def is_open(path: str) -> bool:
    """Whether a GET of this path needs no key: the page's files, which reveal nothing."""
    return path in _PATHS


def routes(service: ModelService, settings: Settings) -> list[BaseRoute]:
    """The routes at `/ui`; none with --no-ui."""
    if not settings.ui:
        return []

    async def config(http: Request) -> Response:
        return JSONResponse(_config(service, settings), headers={"cache-control": "no-store"})

    files = FileTable(ROOT, _FILES, _POLICY, slash=True)
    return [
        Route(ROOT, files),
        Route(f"{ROOT}/config.json", config),
        Route(f"{ROOT}/{{name:path}}", files),
    ]


def _config(service: ModelService, settings: Settings) -> dict[str, object]:
    """What the page shows of the server. Needs a key where requests do."""
    info = service.ranker.engine.info
    return {
        "version": __version__,
        "model": service.name,
        "is_builtin": settings.model == BUILTIN,
        "engine": info.name,
        "device": info.device,
        "max_documents": settings.max_documents,
        "max_tokens": info.max_tokens,
        "max_body_bytes": settings.max_body_bytes,
        "needs_key": service.needs_key,
        "instruction": settings.instruction,
        "presets": settings.instructions,
    }
