"""Traces: a span for each request, and below it one for each stage of its rankings.

Nothing of OpenTelemetry is imported unless traces are wanted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.types import ASGIApp

from rankd import __version__
from rankd.errors import SetupError

# Middleware around a whole app.
AppWrapper = Callable[[ASGIApp], ASGIApp]

# Seconds at the end of a server for spans that are not sent yet, within its drain.
_LAST_SPANS = 5.0


@asynccontextmanager
async def open_tracing(*, enabled: bool, drain_seconds: float) -> AsyncIterator[AppWrapper]:
    """Opens what makes spans of an app's requests, and sends them, where they are wanted.

    Raises:
        SetupError: OpenTelemetry is not installed, or its variables make no sense.
    """
    if not enabled:
        yield no_tracing
        return
    try:
        from rankd.telemetry.tracing.export import close, open_provider
        from rankd.telemetry.tracing.spans import TracingMiddleware
    except ImportError as problem:
        raise SetupError(f"--otel: traces need pip install 'rankd[otel]' ({problem})") from None
    provider = open_provider()
    try:
        yield partial(TracingMiddleware, tracer=provider.get_tracer("rankd", __version__))
    finally:
        await close(provider, min(_LAST_SPANS, drain_seconds))


def no_tracing(app: ASGIApp) -> ASGIApp:
    """Of a server that makes no spans: the app as it is."""
    return app
