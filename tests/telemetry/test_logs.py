"""The log: text or JSON, the ids of requests, and texts that cannot forge a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from fastapi import Response
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID, TRACE, TraceIds
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.engines.vllm.start import _vllm_logs_in_our_format
from rankd.errors import InternalError
from rankd.server.app import open_app
from rankd.server.middleware.access_log import AccessLogMiddleware
from rankd.telemetry.logs import Format, dict_config, handler
from support.dialects import example, home
from support.servers import command, free_port, run, serving
from support.terminals import on_terminal

BODY = {"query": "canary-query", "documents": ["canary-document"], "instruction": "canary-task"}
FAKE = ("--engine", "fake")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(message: str, shape: Format, stream: io.StringIO | None = None, **extra: Any) -> str:
    """The output for one warning."""
    stream = io.StringIO() if stream is None else stream
    logger = logging.Logger("rankd.test")
    logger.addHandler(handler(shape, stream))
    logger.warning("%s", message, extra=extra)
    return stream.getvalue()


@pytest.fixture
def in_request() -> Iterator[None]:
    request, trace = REQUEST_ID.set("mine-1"), TRACE.set(TraceIds("a" * 32, "b" * 16))
    yield
    REQUEST_ID.reset(request)
    TRACE.reset(trace)


@pytest.mark.usefixtures("in_request")
def test_a_json_line_has_the_ids_of_its_request() -> None:
    line = json.loads(written("oh", "json", status=7))

    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "rankd.test",
        "message": "oh",
        "status": 7,
        "request_id": "mine-1",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
    }


@pytest.mark.usefixtures("in_request")
def test_a_text_line_has_the_ids_of_its_request() -> None:
    ids = f"request_id=mine-1 trace_id={'a' * 32} span_id={'b' * 16}"

    assert written("oh", "text").endswith(f" WARNING rankd.test: oh {ids}\n")


def test_a_line_outside_of_a_request_has_no_ids() -> None:
    assert set(json.loads(written("oh", "json"))) == {"timestamp", "level", "logger", "message"}
    assert written("oh", "text").endswith(" WARNING rankd.test: oh\n")


@given(st.text(st.characters()))
def test_no_text_can_forge_a_json_line(text: str) -> None:
    line = written(text, "json")

    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_can_forge_a_text_line(text: str) -> None:
    first, *more = written(text, "text", Terminal()).removesuffix("\n").split("\n")

    assert " WARNING rankd.test: " in first
    assert all(line.startswith("    ") for line in more)
    message = "\n".join((first.split("rankd.test: ", 1)[1], *more)).replace("\x1b[0m", "")
    assert not set(message) & {"\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"}


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_depend_on_terminal_and_variables(
    variables: dict[str, str], coloured: bool
) -> None:
    plain = {"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": ""}
    with mock.patch.dict(os.environ, {**plain, **variables}):
        assert ("\x1b[33m" in written("oh", "auto", Terminal())) is coloured
        assert "\x1b" not in written("oh", "text")


def test_force_color_colours_text_but_not_json() -> None:
    with mock.patch.dict(os.environ, {"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": "1"}):
        assert "\x1b[33m" in written("oh", "text")
        assert "\x1b" not in written("oh", "auto")


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    assert " WARNING rankd.test: oh" in written("oh", "auto", Terminal())
    assert json.loads(written("oh", "auto"))["message"] == "oh"


def test_a_server_on_a_terminal_logs_text() -> None:
    shown = on_terminal("serve", *FAKE, "--port", "0", until="Ctrl-C stops the server", columns=200)

    assert shown.status == 0
    assert re.search(r"^\S+ \S+ INFO rankd: stopping", shown.text, re.MULTILINE)
    assert '{"' not in shown.text


def test_a_server_whose_standard_error_is_closed_still_serves() -> None:
    """As with daemon managers and `2>&-`."""
    port = free_port()
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("serve", *FAKE, "--port", str(port))]
    )
    try:
        until = time.monotonic() + 60
        while not is_ready(port):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < until
            time.sleep(0.1)
        reply = httpx.post(f"http://127.0.0.1:{port}/v1/rerank", json=BODY)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)

    assert (reply.status_code, ended) == (200, 0)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False


def test_health_checks_are_logged_from_debug_on_unless_they_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def probe(scope: Any, _receive: Any, send: Any) -> None:
        status = 503 if scope["path"] == "/readyz" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = AccessLogMiddleware(
        probe, counts_as=lambda _: None, enabled=True, render=lambda *_: Response()
    )
    client = TestClient(app)
    with caplog.at_level(logging.DEBUG, "rankd.access"):
        for path in ("/livez", "/readyz", "/v1/models"):
            client.get(path)

    levels = [record.levelname for record in caplog.records if record.name == "rankd.access"]
    assert levels == ["DEBUG", "INFO", "INFO"]


def test_every_line_of_a_server_is_json_with_its_request_id() -> None:
    with serving(*FAKE) as server:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as garbage:
            garbage.sendall(b"no request at all\r\n\r\n")
            garbage.recv(4096)
        _, errors = server.stop(signal.SIGTERM)

    lines = [json.loads(line) for line in errors.splitlines()]
    [access] = [line for line in lines if line["logger"] == "rankd.access"]
    assert (access["request_id"], access["status"], access["path"]) == ("mine-1", 200, "/v1/rerank")
    assert access["duration_ms"] > 0
    assert "canary" not in errors


def test_the_native_worker_logs_in_the_servers_format() -> None:
    """The format reaches the worker in its configuration."""
    script = (
        "import sys, json, logging\n"
        "from rankd.engines.native import worker\n"
        "worker._open = lambda job, replies: logging.getLogger('torch').warning('two\\nlines')\n"
        "worker.framing.unpack_prompts = sys.exit\n"
        "sys.argv = ['worker', json.dumps(dict(folder='', weights=[], yes=1, no=2, device='cpu',"
        " dtype='auto', threads=1, log_level='info', log_format='json'))]\n"
        "import threading, queue\n"
        "worker._read_frames = lambda batches, replies: batches.put(b'')\n"
        "worker.main()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    line = json.loads(ended.stderr.splitlines()[0])
    assert (line["logger"], line["message"]) == ("torch", "two\nlines")


def test_vllms_processes_log_in_the_servers_format() -> None:
    """Applies vLLM's logging configuration in a process that replaces sys.stderr.write."""
    script = (
        "import sys, json, logging\n"
        "from logging.config import dictConfig\n"
        "dictConfig(json.loads(sys.argv[1]))\n"
        "sys.stderr.write = lambda text: None\n"
        "logging.getLogger('vllm.core').info('loaded')\n"
        "logging.getLogger('vllm.core').debug('chatter')\n"
    )
    settings = json.dumps(dict_config("json", {"vllm": "INFO"}))

    ended = subprocess.run(
        [sys.executable, "-c", script, settings],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    [line] = map(json.loads, ended.stderr.splitlines())
    assert (line["logger"], line["message"], line["level"]) == ("vllm.core", "loaded", "INFO")


@pytest.mark.parametrize("own", ["", "VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING"])
def test_vllm_gets_our_logging_configuration_unless_the_operator_sets_one(own: str) -> None:
    with mock.patch.dict(os.environ, {own: "0"} if own else {}):
        before = dict(os.environ)
        with _vllm_logs_in_our_format(Settings(log_format="json")):
            file = Path(os.environ.get("VLLM_LOGGING_CONFIG_PATH", ""))
            configuration = json.loads(file.read_text()) if file.is_file() else None

        assert configuration == (None if own else dict_config("json", {"vllm": "INFO"}))
        assert dict(os.environ) == before
        assert not file.is_file()


def test_log_texts_logs_texts_and_warns_about_it() -> None:
    with serving(*FAKE, "--log-texts") as server:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})
        _, errors = server.stop(signal.SIGTERM)

    lines = [json.loads(line) for line in errors.splitlines()]
    [texts] = [line for line in lines if line["logger"] == "rankd.texts" and "query" in line]
    assert texts["query"] == "canary-query"
    assert texts["documents"] == ["canary-document"]
    assert texts["instruction"] == "canary-task"
    assert texts["request_id"] == "mine-1"
    warned = run("serve", *FAKE, "--log-texts", "--log-format", "text", "--host", "203.0.113.1")
    assert "--log-texts: queries, instructions and documents are written" in warned.stderr


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_errors_of_every_dialect_have_the_request_id(client: TestClient, dialect: Dialect) -> None:
    path, body = home(dialect), example(dialect)
    service = client.app.state.service  # type: ignore[attr-defined]
    with mock.patch.object(service.ranker.engine, "score", side_effect=InternalError("oh")):
        reply = client.post(path, json=body, headers={"x-request-id": "mine-1"})

    assert reply.status_code == 500
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "mine-1"


def test_errors_in_batches_and_unknown_paths_have_the_request_id(client: TestClient) -> None:
    headers = {"x-request-id": "mine-1", "accept": "application/x-ndjson"}

    batch = client.post("/v1/batch_rerank", json={"requests": [{}]}, headers=headers).json()
    unknown = client.get("/nothing", headers=headers).json()

    assert batch["results"][0]["body"]["request_id"] == unknown["request_id"] == "mine-1"


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    """The log of rankd as JSON."""
    stream = io.StringIO()
    json_handler = handler("json", stream)
    logging.getLogger("rankd").addHandler(json_handler)
    yield stream
    logging.getLogger("rankd").removeHandler(json_handler)


@pytest.mark.anyio
async def test_an_unexpected_exception_is_logged_with_its_request_id(
    json_log: io.StringIO,
) -> None:
    async with open_app(Settings(engine="fake", access_log=False)) as app:
        client = TestClient(app, raise_server_exceptions=False)
        engine = app.state.service.ranker.engine
        with mock.patch.object(engine, "score", side_effect=ZeroDivisionError("canary")):
            reply = await asyncio.to_thread(client.post, "/v1/rerank", json=BODY)

    [line] = map(json.loads, json_log.getvalue().splitlines())
    assert line["request_id"] == reply.json()["request_id"]
    assert "ZeroDivisionError" in line["message"]
    assert "canary" not in json_log.getvalue()
