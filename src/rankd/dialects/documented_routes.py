"""The dialects' part of /openapi.json, from the table of routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

from fastapi import APIRouter

from rankd.dialects.openapi import body_of, failures
from rankd.dialects.registry import DIALECTS
from rankd.dialects.routes import SHARED_TAG, RouteSpec, route_specs


def tags() -> list[dict[str, str]]:
    """The sections of /docs: the shared paths, then each dialect."""
    about = {SHARED_TAG: "Paths that clients of all vendors share."}
    # In reverse, so that the first of two dialects with one name describes it.
    about |= {dialect.name: dialect.about for dialect in reversed(DIALECTS)}
    return [{"name": name, "description": text} for name, text in about.items()]


def documented_routers() -> list[APIRouter]:
    """Routes that FastAPI describes and that serve nothing."""
    posts = APIRouter()
    for spec in route_specs():
        if spec.shown:
            _document(posts, spec)
    gets = APIRouter()
    for dialect in DIALECTS:
        if dialect.paths and dialect.get_router is not None:
            gets.include_router(
                dialect.get_router, responses=failures(dialect.failure, (401, 500, 503))
            )
    for dialect in DIALECTS:
        if dialect.prefix_router is not None:
            gets.include_router(
                dialect.prefix_router,
                prefix=dialect.prefix,
                responses=failures(dialect.failure, (401, 404, 500, 503)),
            )
    return [posts, gets]


def _document(router: APIRouter, spec: RouteSpec) -> None:
    def nothing() -> None:
        """FastAPI needs an endpoint; it is never called."""

    router.add_api_route(
        spec.path,
        nothing,
        methods=["POST"],
        name=spec.tag,
        tags=[spec.tag],
        summary=spec.summary,
        description=spec.about or spec.summary,
        response_model=None,
        responses={
            200: {"model": _union(spec.responses)},
            **failures(_union(spec.failures)),
        },
        openapi_extra=body_of(*spec.requests),
    )


def _union(types: Iterable[Any]) -> Any:
    return Union[tuple(dict.fromkeys(types))]  # noqa: UP007  # Its members are values here.
