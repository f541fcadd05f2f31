"""Exports spans to a collector with OTLP over HTTP, in a background thread.

OpenTelemetry's environment variables set the endpoint, the sampling and the queue:
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
    """The tracer provider, configured by OpenTelemetry's environment variables.

    Raises:
        BadSettings: a variable is invalid, or selects a protocol or exporter other than
            OTLP over HTTP.
    """
    _refuse_other_protocols()
    # It logs every failed attempt of every batch; `ReportingExporter` logs a failure once.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        if _variable("OTEL_TRACES_EXPORTER", "otlp") != "none":
            provider.add_span_processor(BatchSpanProcessor(ReportingExporter(OTLPSpanExporter())))
    except ValueError as problem:
        raise BadSettings(f"--otel: invalid OTEL_* variable: {problem}") from None
    return provider


async def close(provider: TracerProvider, seconds: float) -> None:
    """Send the remaining spans, for at most `seconds`; then give up on the collector."""
    # Not a thread of the loop's executor: the loop would wait for it without a limit.
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # The wait timed out and the loop is closed.
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=shut_down, daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(closed.wait(), seconds)


class ReportingExporter(SpanExporter):
    """Logs once when the collector begins to fail, and once when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            _log.warning(
                "traces: cannot send spans to %s; they are dropped until it accepts them",
                _endpoint(),
            )
        elif self._failing and not failed:
            _log.info("traces: %s accepts spans again", _endpoint())
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _refuse_other_protocols() -> None:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := _variable(name, _PROTOCOL)) != _PROTOCOL:
            raise BadSettings(f"--otel: {name} is {protocol!r}; rankd supports {_PROTOCOL} only")
    exporter = _variable("OTEL_TRACES_EXPORTER", "otlp")
    if exporter not in ("otlp", "none"):
        raise BadSettings(f"--otel: OTEL_TRACES_EXPORTER is {exporter!r}; use otlp or none")


def _resource() -> Resource:
    """The resource from OpenTelemetry's variables; the service name defaults to rankd."""
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "rankd"}))
    return resource


def _endpoint() -> str:
    """The collector's URL for log lines, without a password."""
    base = _variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    return str(redacted("", _variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", base)))


def _variable(name: str, default: str) -> str:
    """An environment variable; OpenTelemetry treats an empty one as unset."""
    return os.environ.get(name, "").strip() or default
