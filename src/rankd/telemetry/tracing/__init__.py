"""Tracing with OpenTelemetry: a span for each request, with a child for each stage.

OpenTelemetry is imported only when tracing is enabled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.types import ASGIApp

from rankd import __version__
from rankd.errors import SetupError
from rankd.installing import install_command

# Wraps an ASGI app in middleware.
AppWrapper = Callable[[ASGIApp], ASGIApp]

# Maximum seconds for sending the remaining spans at the end; the drain time may be shorter.
_FLUSH_SECONDS = 5.0


@asynccontextmanager
async def open_tracing(*, enabled: bool, drain_seconds: float) -> AsyncIterator[AppWrapper]:
    """Start the exporter; yields the wrapper that adds tracing to an app, or `no_tracing`.

    Leaving the context sends the remaining spans.

    Raises:
        SetupError: OpenTelemetry is not installed, or one of its variables is invalid.
    """
    if not enabled:
        yield no_tracing
        return
    try:
        from rankd.telemetry.tracing.export import close, open_provider
        from rankd.telemetry.tracing.spans import TracingMiddleware
    except ImportError as problem:
        raise SetupError(
            f"--otel: traces need OpenTelemetry ({problem}): {install_command('otel')}"
        ) from None
    provider = open_provider()
    try:
        yield partial(TracingMiddleware, tracer=provider.get_tracer("rankd", __version__))
    finally:
        await close(provider, min(_FLUSH_SECONDS, drain_seconds))


def no_tracing(app: ASGIApp) -> ASGIApp:
    """Returns the app unchanged: the wrapper when tracing is off."""
    return app
