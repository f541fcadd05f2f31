"""A reader of standard error that hangs never stops the server; lines are dropped and counted."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from rankd.telemetry.logs import handler
from support.servers import command, free_port, get

BODY = {"query": "q", "documents": ["d"]}


@contextmanager
def unread_server(stderr: int, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server with this standard error, which nothing reads."""
    port = free_port()
    program = command("serve", "--engine", "fake", "--port", str(port), *flags)
    process = subprocess.Popen(program, stderr=stderr)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_alive(url)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _wait_until_alive(url: str) -> None:
    for _ in range(600):
        try:
            assert get(f"{url}/livez").status_code == 200
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server did not start")


def read_all(pipe: int) -> list[dict[str, object]]:
    """The lines of a pipe until it is closed."""
    with os.fdopen(pipe, "rb") as stream:
        return [json.loads(line) for line in stream.read().splitlines()]


def test_a_server_whose_log_is_never_read_answers_and_keeps_the_order() -> None:
    reading, writing = os.pipe()
    with unread_server(writing) as (process, url):
        os.close(writing)
        with httpx.Client(timeout=20) as client:
            for number in range(1000):  # 253 lines fill the pipe.
                id_ = {"x-request-id": f"request-{number}"}
                assert client.post(f"{url}/v1/rerank", json=BODY, headers=id_).status_code == 200
        process.send_signal(signal.SIGTERM)
        lines = read_all(reading)
        status = process.wait(30)

    ids = [line["request_id"] for line in lines if line["logger"] == "rankd.access"]
    ranked = [id_ for id_ in ids if str(id_).startswith("request-")]
    assert ranked == [f"request-{number}" for number in range(1000)]
    assert status == 0


def test_lines_beyond_a_megabyte_are_dropped_and_counted() -> None:
    reading, writing = os.pipe()
    with unread_server(writing) as (process, url):
        os.close(writing)
        path = "x" * 20_000
        with httpx.Client(timeout=20) as client:
            statuses = {client.get(f"{url}/{path}").status_code for _ in range(100)}
            time.sleep(1.5)  # Dropped lines are counted once a second.
            metrics = client.get(f"{url}/metrics").text
        process.send_signal(signal.SIGTERM)
        lines = read_all(reading)
        status = process.wait(30)

    name = "rankd_log_lines_dropped_total "
    [dropped] = [line for line in metrics.splitlines() if line.startswith(name)]
    assert statuses == {404}
    assert float(dropped.split()[1]) > 20
    assert any("log lines were dropped" in str(line["message"]) for line in lines)
    assert status == 0


def test_a_reader_that_comes_back_gets_the_lines_without_another_request() -> None:
    reading, writing = os.pipe()
    with unread_server(writing) as (_, url):
        os.close(writing)
        with httpx.Client(timeout=20) as client:
            for number in range(600):
                client.get(f"{url}/version", headers={"x-request-id": f"request-{number}"})
        text, began = b"", time.monotonic()
        while b"request-599" not in text and time.monotonic() - began < 30:
            text += os.read(reading, 65536)
        os.close(reading)

    assert text.count(b"request-") == 600


def test_a_stopped_terminal_does_not_stop_the_server() -> None:
    master, terminal = pty.openpty()
    with unread_server(terminal, "--log-format", "json") as (_, url):
        os.close(terminal)
        with httpx.Client(timeout=20) as client:
            statuses = {client.get(f"{url}/version").status_code for _ in range(600)}
    os.close(master)

    assert statuses == {200}


def test_a_closed_reader_is_no_error() -> None:
    reading, writing = os.pipe()
    with unread_server(writing) as (process, url):
        os.close(writing)
        os.close(reading)
        statuses = {get(f"{url}/version").status_code for _ in range(20)}
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)

    assert statuses == {200}
    assert status == 0


def test_long_lines_and_text_that_is_not_ascii_arrive_unchanged() -> None:
    reading, writing = os.pipe()
    texts = ["长" * 5_000, "é", "x" * 5000]
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        log = logging.getLogger("test_log_stream")
        log.propagate = False
        log.addHandler(handler("json", stream))
        for text in texts:
            log.warning("%s", text)
        log.handlers.clear()
        ours = sys.modules["rankd.telemetry.logs"]
        assert ours.write_waiting() == 0
        data = os.read(reading, 200_000)
    os.close(reading)

    assert [json.loads(line)["message"] for line in data.splitlines()] == texts
