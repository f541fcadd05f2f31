"""Tracing: spans and their attributes, without texts of users, and their export."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rankd.config.settings import Settings
from rankd.errors import EngineRestarting
from rankd.server.app import open_app
from rankd.telemetry.tracing.spans import TracingMiddleware
from support.collector import attributes, collecting
from support.servers import run, serving

BODY = {"query": "canary-query", "documents": ["canary-document", "b"], "instruction": "canary"}
FAKE = ("--engine", "fake")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traced:
    """The app, with its spans in memory."""

    def __init__(self, client: TestClient, memory: InMemorySpanExporter) -> None:
        self.client = client
        self._memory = memory

    def spans(self) -> list[ReadableSpan]:
        """The spans that ended since the last call."""
        spans = list(self._memory.get_finished_spans())
        self._memory.clear()
        return spans

    def fail(self, problem: Exception) -> Any:
        engine = self.client.app.state.service.ranker.engine  # type: ignore[attr-defined]
        return mock.patch.object(engine, "score", side_effect=problem)


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    wrap = partial(TracingMiddleware, tracer=provider.get_tracer("test"))

    class Tracing:
        async def __aenter__(self) -> Any:
            return wrap

        async def __aexit__(self, *_: object) -> None:
            """Nothing to close."""

    settings = Settings(engine="fake", cache_mb=0, access_log=False)
    with (
        asyncio.Runner() as runner,
        mock.patch("rankd.server.app.open_tracing", return_value=Tracing()),
    ):
        context = open_app(settings)
        app = runner.run(context.__aenter__())
        yield Traced(TestClient(app, raise_server_exceptions=False), memory)
        runner.run(context.__aexit__(None, None, None))


def test_a_request_is_a_span_with_its_stages_as_children(traced: Traced) -> None:
    traced.spans()
    traced.client.post("/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})

    *stages, request = traced.spans()
    assert request.name == "POST /v1/rerank"
    assert request.kind is SpanKind.SERVER
    assert request.parent is None
    assert request.status.status_code is StatusCode.UNSET
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/rerank",
        "http.response.status_code": 200,
        "url.path": "/v1/rerank",
        "url.scheme": "http",
        "rankd.request_id": "mine-1",
        "rankd.dialect": "openai",
        "rankd.preset": "custom",
        "rankd.documents": 2,
        "rankd.cached_documents": 0,
        "rankd.truncated_documents": 0,
    }
    assert expected.items() <= dict(request.attributes or {}).items()
    assert (request.attributes or {})["rankd.tokens"] > 100  # type: ignore[operator]
    assert [one.name for one in stages] == [
        "parse",
        "tokenise",
        "cache",
        "queue",
        "engine",
        "render",
    ]
    for one in stages:
        assert one.parent is not None
        assert one.parent.span_id == request.context.span_id
        assert one.context.trace_id == request.context.trace_id
        assert _inside(one, request)


def _inside(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Allows a millisecond, because start and end are read from two clocks."""
    slack = 1_000_000
    assert child.start_time
    assert child.end_time
    assert parent.start_time
    assert parent.end_time
    return (
        parent.start_time - slack <= child.start_time <= child.end_time <= parent.end_time + slack
    )


def test_spans_contain_no_texts_of_users(traced: Traced) -> None:
    traced.spans()
    traced.client.post("/v1/rerank?canary=1", json=BODY)
    traced.client.post("/v1/rerank", json=BODY | {"documents": [{"canary": 1}]})
    with traced.fail(ZeroDivisionError("canary")):
        traced.client.post("/v1/rerank", json=BODY)

    spans = traced.spans()
    assert len(spans) > 10
    assert "canary" not in "".join(span.to_json() for span in spans)


def test_the_trace_of_the_caller_is_continued(traced: Traced) -> None:
    traced.spans()
    reply = traced.client.post("/v1/rerank", json=BODY, headers={"traceparent": TRACEPARENT})

    request = traced.spans()[-1]
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    expected = f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert reply.headers["traceparent"] == expected
    assert f'traceparent;desc="{expected}"' in reply.headers["server-timing"]


def test_an_unsampled_trace_has_no_spans(traced: Traced) -> None:
    traced.spans()
    reply = traced.client.post(
        "/v1/rerank", json=BODY, headers={"traceparent": TRACEPARENT.removesuffix("1") + "0"}
    )

    assert traced.spans() == []
    assert reply.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert reply.headers["traceparent"].endswith("-00")


@pytest.mark.parametrize("wrong", ["", "00-0-0-0", "ff" + TRACEPARENT[2:], "é" * 55])
def test_an_invalid_traceparent_begins_a_new_trace(traced: Traced, wrong: str) -> None:
    traced.spans()
    headers = {b"traceparent": wrong.encode()}
    assert traced.client.post("/v1/rerank", json=BODY, headers=headers).status_code == 200

    request = traced.spans()[-1]
    assert request.parent is None
    assert f"{request.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/tei/health", "/v1/models"])
def test_get_requests_are_not_traced(traced: Traced, path: str) -> None:
    traced.spans()
    reply = traced.client.get(path)

    assert reply.status_code == 200
    assert "traceparent" not in reply.headers
    assert traced.spans() == []


def test_several_rankings_have_spans_with_their_own_stages(traced: Traced) -> None:
    traced.spans()
    texts = {"query": "q", "texts": ["a"]}
    traced.client.post("/v1/batch_rerank", json={"requests": [BODY, texts]})

    *below, request = traced.spans()
    parts = [one for one in below if one.name == "rerank"]
    assert {(one.attributes or {})["rankd.dialect"] for one in parts} == {"openai", "tei"}
    assert {one.parent.span_id for one in parts if one.parent} == {request.context.span_id}
    engines = [one for one in below if one.name == "engine"]
    assert {one.parent.span_id for one in engines if one.parent} == {
        one.context.span_id for one in parts
    }


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (EngineRestarting("away"), 503, "engine_down"),
        (ZeroDivisionError("canary"), 500, "ZeroDivisionError"),
    ],
)
def test_a_server_error_marks_the_span_as_an_error(
    traced: Traced, problem: Exception, status: int, kind: str
) -> None:
    traced.spans()
    with traced.fail(problem):
        traced.client.post("/v1/rerank", json=BODY)

    spans = {span.name: span for span in traced.spans()}
    request = spans["POST /v1/rerank"]
    assert request.status.status_code is StatusCode.ERROR
    assert (request.attributes or {})["http.response.status_code"] == status
    assert (request.attributes or {})["error.type"] == kind
    assert [event.name for event in request.events] == ["exception"]
    assert spans["engine"].status.status_code is StatusCode.ERROR
    assert spans["tokenise"].status.status_code is StatusCode.UNSET


def test_a_client_error_does_not_mark_the_span_as_an_error(traced: Traced) -> None:
    traced.spans()
    traced.client.post("/v1/rerank", json={"query": "q"})

    [request] = traced.spans()
    assert request.status.status_code is StatusCode.UNSET
    assert (request.attributes or {})["error.type"] == "invalid_request"


def test_an_unknown_path_is_not_in_the_name_of_the_span(traced: Traced) -> None:
    traced.spans()
    traced.client.post("/scanner/4711", json={})

    [request] = traced.spans()
    assert request.name == "POST"


def test_spans_are_exported_before_the_server_exits() -> None:
    """The processor's delay is longer than the test, so the export happens at the exit."""
    with (
        collecting() as collector,
        mock.patch.dict(
            "os.environ",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "600000",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
            },
        ),
        serving(*FAKE, "--otel") as server,
    ):
        headers = {"traceparent": TRACEPARENT, "x-request-id": "mine-1"}
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers=headers)
        code, said = server.stop(signal.SIGTERM)
        spans = collector.wait_for(6, 0)

    assert code == 0
    request = next(span for span in spans if span.name == "POST /v1/rerank")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    stages = [span for span in spans if span.parent_span_id == request.span_id]
    assert {span.name for span in stages} == {
        "parse",
        "tokenise",
        "cache",
        "queue",
        "engine",
        "render",
    }
    assert attributes(request)["rankd.documents"] == 2
    assert attributes(request)["network.protocol.version"] == "1.1"
    assert collector.resources[0]["service.name"] == "rankd"
    assert collector.resources[0]["deployment.environment"] == "test"
    [access] = [line for line in map(json.loads, said.splitlines()) if "status" in line]
    assert (access["trace_id"], access["span_id"]) == (TRACE, request.span_id.hex())


def test_lines_of_a_batch_job_are_traced(tmp_path: Path) -> None:
    with (
        collecting() as collector,
        mock.patch.dict(
            "os.environ",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"},
        ),
        serving(*FAKE, "--otel", "--batch-dir", str(tmp_path)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        line = {"custom_id": "a", "method": "POST", "url": "/v1/rerank", "body": BODY}
        file = client.post(
            "/v1/files",
            data={"purpose": "batch"},
            files={"file": ("in.jsonl", json.dumps(line).encode())},
        ).json()
        client.post(
            "/v1/batches",
            json={
                "input_file_id": file["id"],
                "endpoint": "/v1/rerank",
                "completion_window": "24h",
            },
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = [one for one in collector.spans if "rankd.batch" in attributes(one)]
            if found:
                break
            time.sleep(0.05)
        server.stop(signal.SIGTERM)

    [request] = found
    assert request.name == "POST /v1/rerank"
    assert attributes(request)["rankd.request_id"].startswith("req_")
    stages = {one.name for one in collector.spans if one.parent_span_id == request.span_id}
    assert {"tokenise", "engine", "render"} <= stages


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_missing_collector_is_logged_once_and_delays_nothing(hangs: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if hangs:
            taken.listen()  # Accepts connections and never responds.
        url = f"http://user:canary@127.0.0.1:{taken.getsockname()[1]}"
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with mock.patch.dict("os.environ", variables), serving(*FAKE, "--otel") as server:
            for _ in range(4):
                reply = httpx.post(f"{server.url}/v1/rerank", json=BODY)
                assert reply.status_code == 200
                time.sleep(0.6)
            began = time.monotonic()
            code, said = server.stop(signal.SIGTERM)
            took = time.monotonic() - began

    assert code == 0
    assert took < 30
    assert said.count("they are dropped until it accepts them") == 1
    assert "canary" not in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "rankd supports http/protobuf only"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "use otlp or none"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"}, "invalid OTEL_* variable"),
    ],
)
def test_invalid_variables_are_an_error_at_start(variables: dict[str, str], message: str) -> None:
    ended = run("serve", *FAKE, "--otel", **variables)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_opentelemetry_is_imported_only_with_otel() -> None:
    script = (
        "import asyncio, sys\n"
        "from rankd.server.app import open_app\n"
        "from rankd.config.settings import Settings\n"
        "async def main():\n"
        "    async with open_app(Settings(engine='fake')):\n"
        "        print(sorted(name for name in sys.modules if 'opentelemetry' in name))\n"
        "asyncio.run(main())\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "[]\n"


def test_without_the_extra_the_error_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from rankd.cli.main import main\n"
        "sys.exit(main(['serve', '--engine', 'fake', '--otel', '--port', '0']))\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert "[otel]'" in ended.stderr
    assert "Traceback" not in ended.stderr
