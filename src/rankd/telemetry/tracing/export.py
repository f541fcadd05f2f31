"""Where spans go: to a collector, in a thread, by OTLP over HTTP.

OpenTelemetry's own variables say where it is, what is sampled and how much is kept:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from rankd import __version__
from rankd.config.redaction import redacted
from rankd.errors import BadSettings

_log = logging.getLogger("rankd")

_PROTOCOL = "http/protobuf"


def open_provider() -> TracerProvider:
    """Raises `BadSettings` when OpenTelemetry's variables want what is not here."""
    _refuse_other_protocols()
    # It says the same of every batch, with each attempt; `Reporting` says it once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        if _variable("OTEL_TRACES_EXPORTER", "otlp") != "none":
            provider.add_span_processor(BatchSpanProcessor(Reporting(OTLPSpanExporter())))
    except ValueError as problem:
        raise BadSettings(f"--otel: a variable OTEL_* makes no sense: {problem}") from None
    return provider


async def close(provider: TracerProvider, seconds: float) -> None:
    """Send what is not sent yet, for so long at most; a collector that hangs is left behind."""
    # No thread of the loop's own: it would wait for that one, however long it takes.
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # Nobody waits any more, nor is there a loop.
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=end, daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(closed.wait(), seconds)


class Reporting(SpanExporter):
    """Says once that spans are lost, and once that they are not any more."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            _log.warning("traces: %s does not take them; they are lost until it does", _where())
        elif self._lost and not lost:
            _log.info("traces: %s takes them again", _where())
        self._lost = lost
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _refuse_other_protocols() -> None:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := _variable(name, _PROTOCOL)) != _PROTOCOL:
            raise BadSettings(f"--otel: {name} is {protocol!r}; rankd speaks {_PROTOCOL} only")
    exporter = _variable("OTEL_TRACES_EXPORTER", "otlp")
    if exporter not in ("otlp", "none"):
        raise BadSettings(f"--otel: OTEL_TRACES_EXPORTER is {exporter!r}; it may be otlp or none")


def _resource() -> Resource:
    """What the variables say of this service, and else its own name."""
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "rankd"}))
    return resource


def _where() -> str:
    """The collector's address, without a password."""
    base = _variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    return str(redacted("", _variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", base)))


def _variable(name: str, default: str) -> str:
    """An empty variable is as good as none, says OpenTelemetry."""
    return os.environ.get(name, "").strip() or default
