"""Errors as HTTP responses, in the format of the request's dialect."""

from __future__ import annotations

from functools import cache

from fastapi import Response
from starlette.routing import Route
from starlette.types import Scope

from rankd.context import DIALECT, FAILURE, PREFIX
from rankd.dialects import detect
from rankd.dialects.base import Dialect
from rankd.dialects.json_io import JsonResponse
from rankd.dialects.registry import DIALECTS
from rankd.dialects.request import RERANK_PATHS
from rankd.errors import RankError


def error_response(problem: RankError, scope: Scope) -> Response:
    """The error's response; stores the error in the scope for the access log."""
    scope.setdefault(FAILURE, problem)
    dialect = _dialect_of(problem, scope)
    response = JsonResponse(dialect.envelope(problem), problem.status)
    if problem.retry_after is not None:
        response.headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _dialect_of(problem: RankError, scope: Scope) -> Dialect:
    """The dialect that was stored when the body was read, or that of the prefix or path."""
    prefix, path = scope.get(PREFIX), scope["path"]
    if problem.status == 401 and prefix is None and path in RERANK_PATHS:
        return _dialect_of_scheme(scope) or _renders_unidentified_401()
    if dialect := scope.get(DIALECT):
        stored: Dialect = dialect
        return stored
    candidates = [dialect for dialect in DIALECTS if prefix in (None, dialect.name)]
    for start, dialect in _own_paths():
        if dialect in candidates and _starts_with(path, start):
            return dialect
    return detect.FALLBACK if prefix is None else candidates[0]


def _starts_with(path: str, start: str) -> bool:
    return path == start or (start != "/" and start.endswith("/") and path.startswith(start))


def _dialect_of_scheme(scope: Scope) -> Dialect | None:
    """The dialect whose clients alone sign requests as this one is signed."""
    schemes = {
        value.split(b" ", 1)[0].lower()
        for name, value in scope["headers"]
        if name == b"authorization"
    }
    return next((one for one in DIALECTS if one.auth_scheme and one.auth_scheme in schemes), None)


@cache
def _renders_unidentified_401() -> Dialect:
    [dialect] = [dialect for dialect in DIALECTS if dialect.renders_unidentified_401]
    return dialect


@cache
def _own_paths() -> list[tuple[str, Dialect]]:
    """Vendors' own paths, up to where a model's name begins, with their dialect."""
    paths: list[tuple[str, Dialect]] = []
    for dialect in DIALECTS:
        if not dialect.paths:
            continue
        paths += [(path.split("{")[0], dialect) for path in dialect.paths]
        routes = dialect.get_router.routes if dialect.get_router else ()
        paths += [(route.path, dialect) for route in routes if isinstance(route, Route)]
    return paths
