"""The POST routes: one table, from which routing, metric labels and /openapi.json derive.

Without a prefix, the body decides the dialect on shared paths, and a vendor's own paths
use the vendor's. A prefix (`/voyage/...`) selects a dialect: `PathPrefixMiddleware` takes
it off the path and stores it in the scope, so each path has one route for all prefixes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, compile_path
from starlette.types import Scope

from rankd.context import DIALECT, PREFIX
from rankd.dialects import batch_rerank, detect, handler, tei, vllm
from rankd.dialects.base import Dialect, Endpoint, ExtraRoute
from rankd.dialects.registry import DIALECTS
from rankd.dialects.request import RERANK_PATHS
from rankd.errors import InvalidRequest, SetupError
from rankd.ranking.service import service_of

PREFIXES = frozenset(dialect.name for dialect in DIALECTS)

# The section of /docs for paths where the body decides the dialect.
SHARED_TAG = "rerank"

# The metric label of a request on a shared path that was refused before its body was read.
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class RouteSpec:
    """A row of the table: what serves a path under a prefix, and its description.

    Attributes:
        route: the path's pattern without the prefix.
        prefix: the name of a dialect; None: no prefix.
        tag: section of /docs, and dialect in metrics.
        requests: alternatives of the body, and so are `responses` and `failures`.
        ranks: whether it computes scores.
        shown: whether /docs shows it; the others do the same at another path.
    """

    route: str
    prefix: str | None
    endpoint: Endpoint
    tag: str
    summary: str
    requests: tuple[Any, ...]
    responses: tuple[Any, ...]
    failures: tuple[Any, ...]
    ranks: bool = True
    shown: bool = True
    about: str = ""

    @property
    def path(self) -> str:
        """As a client sees it."""
        return (
            self.route if self.prefix is None else f"/{self.prefix}{self.route.removesuffix('/')}"
        )


# The table.


def route_specs() -> list[RouteSpec]:
    """Every path that takes a POST, with and without prefixes."""
    return [
        *_shared_specs(),
        *(_spec(dialect, None, path) for dialect in DIALECTS for path in dialect.paths),
        *(
            _spec(dialect, dialect.name, path, shown=dialect.mounted[:1] == (path,))
            for dialect in DIALECTS
            for path in (*dialect.mounted, *dialect.paths)
        ),
        *_extra_specs(),
    ]


_SHARED_ABOUT = (
    "The body decides which API is used, in the order of docs/api.md; errors use the format of "
    "that API. With `Accept: application/x-ndjson` each result is sent as a line as soon as it is "
    f"computed, then the answer. Also at {', '.join(RERANK_PATHS[1:])}."
)


def _shared_specs() -> Iterator[RouteSpec]:
    for path in RERANK_PATHS:
        yield RouteSpec(
            path,
            None,
            handler.endpoint(detect.dialect_at(path)),
            SHARED_TAG,
            "Order documents by their relevance to a query",
            tuple(dialect.Request for dialect in detect.ORDER),
            tuple(dialect.response for dialect in detect.ORDER),
            tuple(dialect.failure for dialect in detect.ORDER),
            shown=path == RERANK_PATHS[0],
            about=_SHARED_ABOUT,
        )


def _spec(dialect: Dialect, prefix: str | None, path: str, *, shown: bool = True) -> RouteSpec:
    at_root = (prefix, path) == (None, "/")
    variants = (dialect, *detect.ORDER) if at_root else dialect.variants()
    return RouteSpec(
        path,
        prefix,
        handler.endpoint(_dialect_at_root if at_root else dialect.of),
        dialect.name,
        dialect.about,
        tuple(variant.Request for variant in variants),
        tuple(variant.response for variant in variants),
        tuple(variant.failure for variant in variants),
        shown=shown,
    )


def _dialect_at_root(body: Mapping[str, Any]) -> Dialect:
    """TEI's path `/` is also where clients POST that take a base URL for the whole URL."""
    found = detect.dialect_of(body)
    return found if found is not detect.FALLBACK or "documents" in body else tei.dialect


def _extra_specs() -> Iterator[RouteSpec]:
    extras = [(dialect.name, extra) for dialect in DIALECTS for extra in dialect.extra_routes()]
    for tag, extra in (*extras, *_any_dialect_routes()):
        for prefix in extra.prefixes:
            for path in extra.paths:
                yield RouteSpec(
                    path,
                    prefix,
                    extra.endpoint,
                    tag,
                    extra.summary,
                    extra.requests,
                    extra.responses,
                    extra.failures or _failures_under(prefix),
                    ranks=extra.ranks,
                    shown=extra.shown and (prefix, path) == (extra.prefixes[0], extra.paths[0]),
                )


def _failures_under(prefix: str | None) -> tuple[Any, ...]:
    if prefix is None:
        return (detect.FALLBACK.failure,)
    return (next(dialect.failure for dialect in DIALECTS if dialect.name == prefix),)


def _any_dialect_routes() -> list[tuple[str, ExtraRoute]]:
    """Routes that take bodies of any dialect in another frame, with their section of /docs."""
    invocations = ExtraRoute(
        ("/invocations",),
        (None,),
        _invocations,
        "SageMaker's only path: a score request, or a rerank request of any dialect",
        (vllm.VllmScoreRequest, *(dialect.Request for dialect in detect.ORDER)),
        (vllm.VllmScoreResponse, *(dialect.response for dialect in detect.ORDER)),
        failures=tuple(dialect.failure for dialect in detect.ORDER),
    )
    batch = ExtraRoute(
        ("/v1/batch_rerank", "/batch_rerank"),
        (None, "openai"),
        batch_rerank.batch_rerank,
        "Several rerank requests in one; each is answered or refused by itself",
        (batch_rerank.BatchRerankRequest,),
        (batch_rerank.BatchRerankResponse,),
    )
    return [(vllm.dialect.name, invocations), ("openai", batch)]


async def _invocations(http: Request) -> Response:
    """A score request, or a rerank request of any dialect."""
    service = service_of(http)
    try:
        body = await handler.read_body(http, service)
    except InvalidRequest:
        fields = await handler.body_outline(http)
        if fields and not vllm.is_score(fields):
            http.scope[DIALECT] = detect.dialect_of(fields)
        raise
    if vllm.is_score(body):
        return await vllm.score_body(http, service, body)
    return await handler.answer(http, service, detect.dialect_of(body), body)


def refuse_conflicts() -> None:
    """Raises `SetupError` if two dialects claim one path, or one body."""
    detect.refuse_ambiguous_matchers()
    refuse_shared_paths(spec.path for spec in route_specs())


def refuse_shared_paths(paths: Iterable[str]) -> None:
    """Raises `SetupError` if a path is served twice: only one of them would be reached."""
    for path, count in Counter(paths).items():
        if count > 1:
            raise SetupError(f"{count} dialects answer POST {path}")


# What derives from it.


class _Route(Route):
    """Starlette's Route; every version of Starlette stores it in the scope, for the access log."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope


def post_routes() -> list[Route]:
    """One route for each path; the prefix in the scope selects the endpoint."""
    endpoints: dict[str, dict[str | None, Endpoint]] = {}
    for spec in route_specs():
        endpoints.setdefault(spec.route, {})[spec.prefix] = spec.endpoint
    return [
        _Route(path, _by_prefix(by_prefix), methods=["POST"])
        for path, by_prefix in endpoints.items()
    ]


def _by_prefix(endpoints: Mapping[str | None, Endpoint]) -> Endpoint:
    async def serve(http: Request) -> Response:
        prefix = http.scope.get(PREFIX)
        if (endpoint := endpoints.get(prefix)) is None:
            raise HTTPException(404)  # The app's handler says which paths there are.
        return await endpoint(http)

    return serve


def metric_labels(scope: Scope) -> tuple[str, str] | None:
    """The dialect and route under which a rerank request is counted; None for other requests.

    Both come from closed sets, whatever a client sends.
    """
    if scope["method"] != "POST" or (route := route_of(scope["path"])) is None:
        return None
    if dialect := scope.get(DIALECT):
        return dialect.name, route
    return scope.get(PREFIX) or _dialects_of_routes()[route], route


def exact_post_paths() -> frozenset[str]:
    """Every path without a parameter that takes a POST under some prefix or without one."""
    return frozenset(spec.route for spec in route_specs() if "{" not in spec.route)


def route_of(path: str) -> str | None:
    """The pattern of the ranking route that matches a path."""
    routes = _dialects_of_routes()
    if path in routes:
        return path
    return next((route for route, pattern in _patterns() if pattern.fullmatch(path)), None)


@cache
def _dialects_of_routes() -> dict[str, str]:
    """Every route that ranks, and its dialect as metrics name it, without a prefix."""
    return {
        spec.route: _UNKNOWN if spec.tag == SHARED_TAG else spec.tag
        for spec in route_specs()
        if spec.ranks and spec.prefix is None
    }


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Routes whose path holds a parameter."""
    return [(path, compile_path(path)[0]) for path in _dialects_of_routes() if "{" in path]
