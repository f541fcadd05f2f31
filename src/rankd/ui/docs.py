"""`/docs`: the API's description in Swagger UI, without anything from other hosts."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from rankd.ui.files import FileTable

ROOT = "/docs"
FAVICON = "/favicon.ico"

# Swagger UI needs no inline script and no `eval`. Its icons are data URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = {
    "": "swagger/index.html",
    "docs.js": "swagger/docs.js",
    "docs.css": "swagger/docs.css",
    "icon.svg": "static/icon.svg",
    "swagger-ui.css": "swagger/swagger-ui.css",
    "swagger-ui-bundle.js": "swagger/swagger-ui-bundle.js",
}

_PATHS = frozenset({ROOT, FAVICON, *(f"{ROOT}/{name}" for name in _FILES)})


def is_open(path: str) -> bool:
    """Whether a GET of this path needs no key. The description itself, /openapi.json, does."""
    return path in _PATHS


def routes() -> list[BaseRoute]:
    """The routes at `/docs`, and the icon that browsers request for any page."""
    files = FileTable(ROOT, _FILES, _POLICY)
    icon = FileTable(FAVICON, {"": "static/icon.svg"}, _POLICY)
    return [
        Route(ROOT, files),
        Route(f"{ROOT}/{{name:path}}", files),
        Route(FAVICON, icon),
    ]
