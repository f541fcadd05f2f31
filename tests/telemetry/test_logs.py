"""The log: text for people, JSON for machines, whose request a line is of, and no forged line."""

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
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID, TRACE, TraceIds
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.engines.vllm.start import _logging_as_we_do
from rankd.errors import InternalError
from rankd.server.app import open_app
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
    """What is written of a warning."""
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
def test_a_line_of_json_says_whose_it_is() -> None:
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
def test_a_line_of_text_says_whose_it_is() -> None:
    ids = f"request_id=mine-1 trace_id={'a' * 32} span_id={'b' * 16}"

    assert written("oh", "text").endswith(f" WARNING rankd.test: oh {ids}\n")


def test_what_belongs_to_no_request_has_no_id() -> None:
    assert set(json.loads(written("oh", "json"))) == {"timestamp", "level", "logger", "message"}
    assert written("oh", "text").endswith(" WARNING rankd.test: oh\n")


@given(st.text(st.characters()))
def test_no_text_forges_a_line_of_json(text: str) -> None:
    line = written(text, "json")

    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_forges_a_line_of_text(text: str) -> None:
    first, *more = written(text, "text", Terminal()).removesuffix("\n").split("\n")

    assert " WARNING rankd.test: " in first
    assert all(line.startswith("    ") for line in more)
    said = "\n".join((first.split("rankd.test: ", 1)[1], *more)).replace("\x1b[0m", "")
    assert not set(said) & {"\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"}


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    variables: dict[str, str], coloured: bool
) -> None:
    plain = {"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": ""}
    with mock.patch.dict(os.environ, {**plain, **variables}):
        assert ("\x1b[33m" in written("oh", "auto", Terminal())) is coloured
        assert "\x1b" not in written("oh", "text")


def test_colours_can_be_forced_into_text_but_not_into_json() -> None:
    with mock.patch.dict(os.environ, {"TERM": "xterm", "NO_COLOR": "", "FORCE_COLOR": "1"}):
        assert "\x1b[33m" in written("oh", "text")
        assert "\x1b" not in written("oh", "auto")


def test_auto_is_text_for_people_and_json_for_machines() -> None:
    assert " WARNING rankd.test: oh" in written("oh", "auto", Terminal())
    assert json.loads(written("oh", "auto"))["message"] == "oh"


def test_a_server_on_a_terminal_speaks_text() -> None:
    shown = on_terminal("serve", *FAKE, "--port", "0", until="Ctrl-C stops the server", columns=200)

    assert shown.status == 0
    assert re.search(r"^\S+ \S+ INFO rankd: stopping", shown.text, re.MULTILINE)
    assert '{"' not in shown.text


def test_a_server_whose_standard_error_is_closed_still_serves() -> None:
    """As daemon managers and `2>&-` leave it."""
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


def test_every_line_of_a_server_is_json_and_names_its_request() -> None:
    with serving(*FAKE) as server:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as garbage:
            garbage.sendall(b"no request at all\r\n\r\n")
            garbage.recv(4096)
        _, said = server.stop(signal.SIGTERM)

    lines = [json.loads(line) for line in said.splitlines()]
    [access] = [line for line in lines if line["logger"] == "rankd.access"]
    assert (access["request_id"], access["status"], access["path"]) == ("mine-1", 200, "/v1/rerank")
    assert access["duration_ms"] > 0
    assert "canary" not in said


def test_the_workers_lines_are_the_servers() -> None:
    """A line that the worker's own process writes, of a setting that reaches it as its job."""
    script = (
        "import sys, json, logging\n"
        "from rankd.engines.native import worker\n"
        "worker._open = lambda job, replies: logging.getLogger('torch').warning('two\\nlines')\n"
        "worker.framing.unpack_prompts = sys.exit\n"
        "sys.argv = ['worker', json.dumps(dict(folder='', weights=[], yes=1, no=2, device='cpu',"
        " dtype='auto', threads=1, log_level='info', log_format='json'))]\n"
        "import threading, queue\n"
        "worker._hear = lambda batches, replies: batches.put(b'')\n"
        "worker.main()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    line = json.loads(ended.stderr.splitlines()[0])
    assert (line["logger"], line["message"]) == ("torch", "two\nlines")


def test_lines_of_vllms_processes_are_the_servers() -> None:
    """The configuration that they get, in a process that changes what is written to stderr."""
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
def test_vllm_gets_that_configuration_unless_the_operator_has_another(own: str) -> None:
    with mock.patch.dict(os.environ, {own: "0"} if own else {}):
        before = dict(os.environ)
        with _logging_as_we_do(Settings(log_format="json")):
            file = Path(os.environ.get("VLLM_LOGGING_CONFIG_PATH", ""))
            told = json.loads(file.read_text()) if file.is_file() else None

        assert told == (None if own else dict_config("json", {"vllm": "INFO"}))
        assert dict(os.environ) == before
        assert not file.is_file()


def test_texts_are_logged_only_when_asked_and_with_a_warning() -> None:
    with serving(*FAKE, "--log-texts") as server:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers={"x-request-id": "mine-1"})
        _, said = server.stop(signal.SIGTERM)

    [asked] = [line for line in map(json.loads, said.splitlines()) if "asked" in line["message"]]
    assert asked["query"] == "canary-query"
    assert asked["documents"] == ["canary-document"]
    assert asked["instruction"] == "canary-task"
    assert asked["request_id"] == "mine-1"
    warned = run("serve", *FAKE, "--log-texts", "--log-format", "text", "--host", "203.0.113.1")
    assert "--log-texts: queries, instructions and documents are written" in warned.stderr


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialects_error_names_the_request(client: TestClient, dialect: Dialect) -> None:
    path, body = home(dialect), example(dialect)
    service = client.app.state.service  # type: ignore[attr-defined]
    with mock.patch.object(service.ranker.engine, "score", side_effect=InternalError("oh")):
        reply = client.post(path, json=body, headers={"x-request-id": "mine-1"})

    assert reply.status_code == 500
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "mine-1"


def test_errors_in_parts_and_lines_name_the_request(client: TestClient) -> None:
    headers = {"x-request-id": "mine-1", "accept": "application/x-ndjson"}

    many = client.post("/v1/batch_rerank", json={"requests": [{}]}, headers=headers).json()
    lost = client.get("/nothing", headers=headers).json()

    assert many["results"][0]["body"]["request_id"] == lost["request_id"] == "mine-1"


def test_a_bugs_line_names_its_request() -> None:
    stream = io.StringIO()
    lines = handler("json", stream)

    async def ask() -> Any:
        async with open_app(Settings(engine="fake", access_log=False)) as app:
            client = TestClient(app, raise_server_exceptions=False)
            engine = app.state.service.ranker.engine
            with mock.patch.object(engine, "score", side_effect=ZeroDivisionError("canary")):
                return await asyncio.to_thread(client.post, "/v1/rerank", json=BODY)

    logging.getLogger("rankd").addHandler(lines)
    try:
        reply = asyncio.run(ask())
    finally:
        logging.getLogger("rankd").removeHandler(lines)

    [line] = map(json.loads, stream.getvalue().splitlines())
    assert line["request_id"] == reply.json()["request_id"]
    assert "ZeroDivisionError" in line["message"]
    assert "canary" not in stream.getvalue()
