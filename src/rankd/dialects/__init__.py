"""The counter: who speaks which JSON. One file, one company's whole wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute

from rankd.dialects import openai, vllm
from rankd.errors import SetupError

_DIALECTS = (openai.router, vllm.router)


def routers(routers: Iterable[APIRouter] = _DIALECTS) -> list[APIRouter]:
    """Every dialect's routes.

    Raises:
        SetupError: two dialects answer one path; FastAPI would silently let the
            first one win.
    """
    routers = list(routers)
    claims = Counter(
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    )
    for (method, path), count in claims.items():
        if count > 1:
            raise SetupError(f"{count} dialects answer {method} {path}")
    return routers
