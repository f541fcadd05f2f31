"""Serves /openapi.json with every path, also those that middleware rewrites."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from rankd import batches, dialects
from rankd.config.settings import Settings
from rankd.dialects.envelopes import OpenAIFailure
from rankd.dialects.openapi import completed, failures
from rankd.server import health

_OPERATIONS_FAILURES = failures(OpenAIFailure, (401, 404, 500, 503))


def serve_openapi(app: FastAPI, settings: Settings) -> None:
    """Serve /openapi.json with every path, also those that middleware rewrites.

    It is made on the first request, in a thread: that takes half a second, which must not
    block other requests.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = FastAPI(title=app.title, version=app.version, openapi_tags=app.openapi_tags)
            # Relative to this document, because a proxy may have removed a prefix.
            described.servers = [{"url": settings.root_path or "."}]
            described.description = app.description
            for router in dialects.documented_routers():
                described.include_router(router)
            if settings.batch_dir is not None:
                described.include_router(batches.router)
            for router in (health.router, health.shared):
                described.include_router(router, responses=_OPERATIONS_FAILURES)
            app.openapi_schema = completed(
                described.openapi(), {"max_documents": settings.max_documents}
            )
        return app.openapi_schema

    async def serve(http: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi))

    app.openapi = openapi  # type: ignore[method-assign]
    # Before FastAPI's own routes: one would make the document on the event loop, and the pages
    # would request it at the root of the host, also if a proxy serves them elsewhere.
    app.router.routes[:0] = [
        Route("/openapi.json", serve, methods=["GET"]),
        *(Route(path, _page(make, app.title)) for path, make in _PAGES.items()),
    ]


_PAGES: dict[str, Callable[..., HTMLResponse]] = {
    "/docs": get_swagger_ui_html,
    "/redoc": get_redoc_html,
}


def _page(make: Callable[..., HTMLResponse], title: str) -> Callable[[Request], HTMLResponse]:
    """An endpoint for a page that shows the document beside it."""
    page = make(openapi_url="openapi.json", title=title)
    return lambda _: page
