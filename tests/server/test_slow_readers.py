"""Clients that do not read their answer, or closed their side, over real sockets."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from contextlib import ExitStack, suppress

import httpx
import pytest

from support.servers import Server, get, serving

# Answers with the documents: more than the kernel's buffers of both sides hold.
BODY = json.dumps({"query": "q", "documents": ["word " * 2_500_000], "return_documents": True})
HEAD = "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n"
POST = (HEAD % (len(BODY), "") + BODY).encode()
STREAMED = (HEAD % (len(BODY), "Accept: application/x-ndjson\r\n") + BODY).encode()
SMALL = b'{"query": "q", "documents": ["d"]}'
WHOLE = (HEAD % (len(SMALL), "")).encode() + SMALL

# What stands behind the unread answer.
BEHIND = {
    "nothing": b"",
    "a health check": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another request": POST,
    "half a body": (HEAD % (500, "")).encode() + b"{",
    "half a head": b"POST /v1/rerank HTTP/1.1\r\nHost: loc",
}


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    # Before the answer, so that the window never grows.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return connection


def open_connections(server: Server) -> int:
    """Connections of the server, with those that the kernel keeps for unread bytes."""
    port = f":{int(server.url.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    return sum(row[1].endswith(port) and row[3] in ("01", "04") for row in rows)


def wait_until_closed(server: Server, seconds: float) -> None:
    """Wait until no connection is open."""
    began = time.monotonic()
    while count := open_connections(server):
        assert time.monotonic() - began < seconds, f"{count} are still open"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("post", [POST, STREAMED], ids=["plain", "streamed"])
def test_an_unread_answer_is_closed_in_time_whatever_stands_behind_it(post: bytes) -> None:
    with (
        serving("--engine", "fake", "--read-timeout-seconds", "2") as server,
        ExitStack() as held,
    ):
        for behind in BEHIND.values():
            with suppress(OSError):
                held.enter_context(connect(server)).sendall(post + behind)
        assert open_connections(server) > 0
        wait_until_closed(server, 60)
        alive = get(f"{server.url}/livez").status_code
        _, errors = server.stop(signal.SIGTERM)

    assert alive == 200
    assert "ERROR" not in errors


@pytest.mark.slow
def test_a_client_that_reads_slowly_but_steadily_gets_its_whole_answer() -> None:
    with (
        serving("--engine", "fake", "--read-timeout-seconds", "2") as server,
        connect(server) as connection,
    ):
        connection.sendall(POST.replace(b"Host", b"Connection: close\r\nHost", 1))
        began = time.monotonic()
        size = 0
        while part := connection.recv(1024 * 1024):
            size += len(part)
            if time.monotonic() - began < 6:  # Three times the limit.
                time.sleep(0.2)

    assert size > len(BODY)


@pytest.mark.slow
def test_unread_answers_count_as_memory_until_the_client_is_closed() -> None:
    flags = ("--engine", "fake", "--read-timeout-seconds", "15")
    limit = {"rankd.server.app.WAITING_BODIES": 0.5}  # 16 MiB.
    large = SMALL + b" " * 12_000_000
    with serving(*flags, constants=limit) as server, ExitStack() as held:
        held.enter_context(connect(server)).sendall(POST)
        time.sleep(3)
        refused = httpx.post(f"{server.url}/v1/rerank", content=large)
        small = httpx.post(f"{server.url}/v1/rerank", content=SMALL)
        held.close()
        time.sleep(0.5)
        after = httpx.post(f"{server.url}/v1/rerank", content=large)

    assert refused.status_code == 429
    assert "unread answers" in refused.json()["message"]
    assert small.status_code == 200
    assert after.status_code == 200


@pytest.mark.slow
def test_a_stop_does_not_wait_for_clients_that_do_not_read() -> None:
    with serving("--engine", "fake", "--drain-seconds", "300") as server, ExitStack() as held:
        for behind in BEHIND.values():
            with suppress(OSError):
                held.enter_context(connect(server)).sendall(POST + behind)
        time.sleep(3)
        began = time.monotonic()
        status, errors = server.stop(signal.SIGTERM)
        took = time.monotonic() - began

    assert status == 0
    assert took < 200  # Less than --drain-seconds; it takes about 6.
    assert "Traceback" not in errors


@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["at once", "later"])
def test_a_half_closed_client_gets_its_answers(pause: float) -> None:
    with serving("--engine", "fake") as server, connect(server) as connection:
        connection.sendall(WHOLE + WHOLE)
        time.sleep(pause)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(65536):
            said += part

    assert said.count(b"HTTP/1.1 200") == 2


@pytest.mark.slow
def test_a_half_closed_client_gets_an_answer_that_takes_seconds() -> None:
    documents = [f"document {number} " + "and so on " * 150 for number in range(200)]
    body = json.dumps({"query": "q", "documents": documents}).encode()
    with serving("--self-check", "off") as server, connect(server) as connection:
        connection.sendall((HEAD % (len(body), "")).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(65536):
            said += part
        _, errors = server.stop(signal.SIGTERM)

    *interim, answer = re.split(rb"(?=HTTP/1\.1 )", said)[1:]
    assert interim
    assert set(interim) == {b"HTTP/1.1 100 Continue\r\n\r\n"}
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["results"]) == 200
    assert "POST /v1/rerank 200" in errors
