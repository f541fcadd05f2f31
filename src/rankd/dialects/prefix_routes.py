"""GET routes under one dialect's prefix, for paths that vendors answer in different shapes."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from rankd.context import PREFIX


def prefix_router(prefix: str) -> APIRouter:
    """A router whose routes match only requests with this prefix, such as `/infinity/models`."""

    class PrefixRoute(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            if scope.get(PREFIX) != prefix:
                return Match.NONE, {}
            return super().matches(scope)

    return APIRouter(tags=[prefix], route_class=PrefixRoute)
