"""Serves /openapi.json with every path, also those that middleware rewrites."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from rankd import batches, dialects
from rankd.config.settings import Settings
from rankd.dialects.envelopes import OpenAIFailure
from rankd.dialects.openapi import completed, failures
from rankd.server import health

_OPERATIONS_FAILURES = failures(OpenAIFailure, (401, 404, 500, 503))


def serve_openapi(app: FastAPI, settings: Settings, *, needs_key: bool) -> None:
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
            if needs_key:
                _require_key(app.openapi_schema)
        return app.openapi_schema

    async def serve(http: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi))

    app.openapi = openapi  # type: ignore[method-assign]
    # Before FastAPI's own route, which would make it on the event loop.
    app.router.routes.insert(0, Route("/openapi.json", serve, methods=["GET"]))


def _require_key(document: dict[str, Any]) -> None:
    """Describe the key, and which operations need none; changed in place."""
    scheme = {"type": "http", "scheme": "bearer", "description": "An API key of this server."}
    document.setdefault("components", {})["securitySchemes"] = {"key": scheme}
    document["security"] = [{"key": []}]
    for path, operations in document["paths"].items():
        if "get" in operations and health.is_open(path):
            operations["get"]["security"] = []
