"""Renders errors that reach the app in the format of the request's API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from rankd import dialects
from rankd.errors import InternalError, NotFound, RankError, WrongMethod


async def render_error(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, RankError) else InternalError(str(error))
    return dialects.error_response(problem, request.scope)


async def render_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: unknown path (404), wrong method (405)."""
    problem: RankError
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    if getattr(error, "status_code", 404) == 405:
        problem = WrongMethod(f"{request.method} is not supported at {path}")
    else:
        problem = NotFound(f"nothing is served at {path}; see /docs")
    response = dialects.error_response(problem, request.scope)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def render_bug(error: Exception, scope: Scope) -> Response:
    problem = InternalError("an error inside rankd; it has been logged")
    return dialects.error_response(problem, scope)
