"""Renders errors that reach the app in the format of the request's API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from rankd import dialects
from rankd.errors import InternalError, RankError


async def render_error(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, RankError) else InternalError(str(error))
    return dialects.error_response(problem, request.scope)


async def render_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: unknown path (404), wrong method (405)."""
    is_method = getattr(error, "status_code", 404) == 405
    problem = (dialects.wrong_method if is_method else dialects.no_such_path)(request.scope)
    response = dialects.error_response(problem, request.scope)
    response.headers.update(getattr(error, "headers", None) or {})
    if is_method:
        response.headers["allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """The methods of every route at the request's path; Starlette knows those of the first."""
    routes = [route for route in request.app.router.routes if isinstance(route, Route)]
    at_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods or ()})


def render_bug(error: Exception, scope: Scope) -> Response:
    problem = InternalError("an error inside rankd; it has been logged")
    return dialects.error_response(problem, scope)
