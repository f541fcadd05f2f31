"""Limits on bytes, connections and time of one client, over real sockets."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from rankd.server.http11 import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED
from support.servers import Server, get, serving
from support.yardstick import scaled

BODY = b'{"query": "q", "documents": ["d"]}'
HEAD = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = HEAD % len(BODY) + BODY
ONE_CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--engine", "fake", "--read-timeout-seconds", "1.5") as server:
        yield server


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def sent(connection: socket.socket, data: bytes) -> None:
    """Send as much as the server accepts."""
    with suppress(OSError):
        connection.sendall(data)


def answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Everything until the connection is closed: status, code of the error, all bytes."""
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    if not received:
        return 0, "", b""
    head, _, body = received.partition(b"\r\n\r\n")
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = ""
    return int(head.split()[1]), code, received


LONG = b"x" * (MAX_HEAD_BYTES + 1)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + LONG + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + LONG * 20,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + LONG + b": a\r\n\r\n",
        b"GET /" + LONG + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"\r\n" * 400_000,
        CHUNKED + ONE_CHUNK + b"0\r\nA: " + LONG * 20,
        CHUNKED + ONE_CHUNK + b"0\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        CHUNKED + b"1;" + LONG * 20,
    ],
    ids=[
        "one long value",
        "a value without an end",
        "one long name",
        "a long path",
        "many headers",
        "nothing but newlines",
        "a trailer without an end",
        "many trailers",
        "a chunk's extension",
    ],
)
def test_a_head_beyond_the_limit_is_a_431(server: Server, request_: bytes) -> None:
    with connect(server) as connection:
        sent(connection, request_)
        status, code, said = answer(connection)

    assert (status, code) == (431, "request_header_fields_too_large")
    assert b"connection: close" in said


def test_a_hundred_megabytes_of_header_do_not_delay_other_requests(server: Server) -> None:
    with connect(server) as connection:
        sent(connection, b"GET / HTTP/1.1\r\nA: ")
        flood = threading.Thread(target=sent, args=(connection, b"x" * 100_000_000))
        flood.start()
        began = time.monotonic()
        for _ in range(20):
            assert get(f"{server.url}/livez").status_code == 200
        took = time.monotonic() - began
        flood.join()

    assert took < scaled(11)  # Without the limit on heads, copying took 12 seconds.


def test_a_head_within_the_limit_is_served(server: Server) -> None:
    headers = {f"x-{index}": "y" * 300 for index in range(150)}

    assert httpx.get(f"{server.url}/livez", headers=headers).status_code == 200


def test_a_large_body_before_half_a_head_is_not_counted_as_head(server: Server) -> None:
    body = json.dumps({"query": "q", "documents": ["word " * 20] * 900}).encode()
    with connect(server) as connection:
        connection.sendall(HEAD % len(body) + body + WHOLE[:30])
        time.sleep(0.3)
        connection.sendall(WHOLE[30:].replace(b"Content-L", b"Connection: close\r\nContent-L"))
        _, _, said = answer(connection)

    assert said.count(b"HTTP/1.1 200") == 2


def test_a_trailer_is_not_treated_as_a_header() -> None:
    with serving("--engine", "fake", "--api-key", "k3y") as server, connect(server) as connection:
        trailer = b"0\r\nAuthorization: Bearer k3y\r\nConnection: close\r\n\r\n"
        connection.sendall(CHUNKED.replace(b"Host", b"Connection: close\r\nHost"))
        connection.sendall(ONE_CHUNK + trailer)
        status, _, _ = answer(connection)

    assert status == 401


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "status", "code"),
    [
        (b"", 0, ""),
        (b"GET /livez HTTP/1.1\r\n", 408, "request_timeout"),
        (b"G", 408, "request_timeout"),
        (HEAD % 500, 408, "request_timeout"),
        (HEAD % 500 + BODY, 408, "request_timeout"),
        (CHUNKED + ONE_CHUNK, 408, "request_timeout"),
        (CHUNKED + ONE_CHUNK + b"0\r\n", 408, "request_timeout"),
    ],
    ids=["silence", "head", "one letter", "no body", "half a body", "chunks", "trailers"],
)
def test_an_incomplete_request_is_closed_after_the_read_timeout(
    server: Server, begin: bytes, status: int, code: str
) -> None:
    began = time.monotonic()
    with connect(server) as connection:
        connection.sendall(begin)
        said = answer(connection)
    took = time.monotonic() - began

    assert said[:2] == (status, code)
    assert 1 < took < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"GET /livez HTTP/1.1\r\n", b"A: b\r\n"),
        (b"GET /livez HTTP/1.1\r\nA: ", b"b"),
        (HEAD % 5000, b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + ONE_CHUNK + b"0\r\n", b"A: b\r\n"),
    ],
    ids=["headers", "a value", "body", "chunks", "trailers"],
)
def test_trickling_does_not_extend_the_read_timeout(
    server: Server, begin: bytes, drop: bytes
) -> None:
    began = time.monotonic()
    with connect(server) as connection:
        connection.sendall(begin)
        connection.settimeout(0.2)
        said = b""
        while time.monotonic() - began < 30 and not said:
            sent(connection, drop)
            try:
                said = connection.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break

    assert said.startswith(b"HTTP/1.1 408 ")


def test_newlines_between_requests_do_not_keep_a_connection_open(server: Server) -> None:
    began = time.monotonic()
    with connect(server) as connection:
        connection.sendall(WHOLE)
        connection.settimeout(0.3)
        ended = False
        while time.monotonic() - began < 30 and not ended:
            sent(connection, b"\r\n")
            try:
                ended = connection.recv(65536) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True

    assert ended


def test_a_late_body_gets_an_error_in_the_format_of_its_dialect(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall((HEAD % 500).replace(b"/v1/rerank", b"/tei/rerank"))
        _, _, said = answer(connection)

    assert b"error_type" in said


@pytest.mark.slow
def test_each_request_of_a_connection_has_the_full_read_timeout(server: Server) -> None:
    with httpx.Client() as client:
        for _ in range(3):
            assert client.post(f"{server.url}/v1/rerank", content=BODY).status_code == 200
            time.sleep(0.8)


def test_an_invalid_request_does_not_affect_the_response_before_it(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(WHOLE + b"no such thing\r\n\r\n")
        _, _, said = answer(connection)

    assert said.startswith(b"HTTP/1.1 200")
    assert said.count(b"HTTP/1.1 400") == 1


@pytest.mark.parametrize(
    "smuggling",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length : 5\r\n",
    ],
)
def test_ambiguous_body_lengths_are_refused(server: Server, smuggling: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\n" + smuggling + b"\r\n0\r\n\r\n"
        )
        status, code, said = answer(connection)

    assert (status, code) == (400, "invalid_request")
    assert said.count(b"HTTP/1.1") == 1


# With --max-waiting-requests 4.
FIVE_CONNECTIONS = {"rankd.server.run.MIN_CONNECTIONS": 5, "rankd.server.run.SPARE_CONNECTIONS": 1}


def test_busy_connections_beyond_the_limit_get_a_429_and_health_checks_an_answer() -> None:
    flags = ("--engine", "fake", "--max-waiting-requests", "4")
    with serving(*flags, constants=FIVE_CONNECTIONS) as server, ExitStack() as held:
        first = hold(server, held, len(BODY))
        for _ in range(4):
            hold(server, held)
        time.sleep(0.2)
        beyond = httpx.post(f"{server.url}/v1/rerank", content=BODY)
        probe = httpx.get(f"{server.url}/livez")
        first.sendall(b" ")
        old = first.recv(65536)
        for _ in range(90):
            hold(server, held)
        time.sleep(0.2)
        with connect(server) as closed:
            nothing = answer(closed)
        held.close()
        time.sleep(0.2)
        after = httpx.post(f"{server.url}/v1/rerank", content=BODY)

    assert beyond.status_code == 429
    assert beyond.json()["error"]["code"] == "overloaded"
    assert beyond.headers["retry-after"] == "1"
    assert beyond.headers["connection"] == "close"
    assert probe.status_code == 200
    assert old.startswith(b"HTTP/1.1 400")  # A body of blanks.
    assert nothing[0] == 0
    assert after.status_code == 200


def is_alive(connection: socket.socket) -> bool:
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while part := connection.recv(65536):
        received += part
        if received.endswith(b'{"status":"alive"}'):
            return True
    return False


@pytest.mark.parametrize("begin", [b"", b"GET /livez HTTP/1.1\r\n"], ids=["silent", "half a head"])
def test_idle_connections_beyond_the_limit_make_room(begin: bytes) -> None:
    flags = ("--engine", "fake", "--max-waiting-requests", "4")
    with (
        serving(*flags, constants=FIVE_CONNECTIONS) as server,
        ExitStack() as held,
        connect(server) as kept,
    ):
        assert is_alive(kept)
        for _ in range(300):
            sent(held.enter_context(connect(server)), begin)
        statuses = [httpx.get(f"{server.url}/livez").status_code for _ in range(20)]
        ranked = httpx.post(f"{server.url}/v1/rerank", content=BODY)
        still_open = is_alive(kept)
        metrics = get(f"{server.url}/metrics").text

    assert statuses == [200] * 20
    assert ranked.status_code == 200
    assert still_open  # It has worked, so silent ones are closed first.
    [closed] = re.findall(r"^rankd_idle_connections_closed_total (\S+)", metrics, re.MULTILINE)
    assert float(closed) > 290


@pytest.mark.slow
def test_an_incomplete_body_does_not_delay_the_shutdown() -> None:
    with (
        serving("--engine", "fake", "--drain-seconds", "300") as server,
        connect(server) as body,
        connect(server) as head,
    ):
        body.sendall(HEAD % 500 + BODY)
        head.sendall(WHOLE[:20])
        time.sleep(0.3)
        began = time.monotonic()
        status, errors = server.stop(signal.SIGTERM)
        took = time.monotonic() - began
        said = answer(body)

    assert said[:2] == (503, "shutting_down")
    assert status == 0
    assert took < 200  # Less than --drain-seconds.
    assert "Traceback" not in errors


def test_a_body_that_arrives_in_the_grace_period_gets_a_response() -> None:
    with serving("--engine", "fake") as server, connect(server) as connection:
        connection.sendall(WHOLE[:-5])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(WHOLE[-5:])
        status, _, _ = answer(connection)

    assert status in (200, 503)  # A stopping server refuses new requests.


def test_refused_requests_are_counted(server: Server) -> None:
    metrics = get(f"{server.url}/metrics").text

    assert 'status="431"' in metrics


def test_too_many_pipelined_requests_get_a_429_after_the_earlier_responses(
    server: Server,
) -> None:
    with connect(server) as connection:
        sent(connection, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000)
        _, _, said = answer(connection)

    assert said.count(b"HTTP/1.1 200") == MAX_PIPELINED + 1
    assert said.count(b"HTTP/1.1 429") == 1
    assert said.index(b"HTTP/1.1 429") > said.rindex(b"HTTP/1.1 200")
    assert b"more than 32 requests wait on this connection" in said


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = [
        WHOLE.replace(b'd"', b'%dd"' % number).replace(
            b"Length: %d" % len(BODY), b"Length: %d" % (len(BODY) + 2)
        )
        for number in range(10, 10 + MAX_PIPELINED)
    ]
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(server) as connection:
        sent(connection, b"".join(requests) + last)
        _, _, said = answer(connection)

    assert said.count(b"HTTP/1.1 200") == MAX_PIPELINED + 1
    assert b"429" not in said.split(b"\r\n")[0]


# Together, all bodies may take half of what one may take.
HALF_A_BODY = {"rankd.server.app.WAITING_BODIES": 0.5}

# Two of them use up the limit of the next test.
LARGE = 99_999


def hold(server: Server, held: ExitStack, size: int = LARGE) -> socket.socket:
    """A connection that has sent a body without its last byte."""
    connection = held.enter_context(connect(server))
    connection.sendall(HEAD % size + b" " * (size - 1))
    return connection


def test_the_total_size_of_bodies_is_limited_but_small_bodies_are_always_read() -> None:
    flags = ("--engine", "fake", "--max-body-bytes", "400000")
    with serving(*flags, constants=HALF_A_BODY) as server, ExitStack() as held:
        first, second = hold(server, held), hold(server, held)
        time.sleep(0.3)
        third = answer(hold(server, held))
        small = httpx.post(f"{server.url}/v1/rerank", content=BODY)
        first.close()
        second.close()
        time.sleep(0.3)
        alone = httpx.post(f"{server.url}/v1/rerank", content=BODY + b" " * 300_000)
        after = httpx.post(f"{server.url}/v1/rerank", content=BODY + b" " * LARGE)

    assert third[:2] == (429, "overloaded")
    assert b"the limit for all is 200,000" in third[2]
    assert b"retry-after: 1" in third[2]
    assert small.status_code == 200
    assert alone.status_code == 200  # Above the limit, but it is the only body.
    assert after.status_code == 200


def test_a_content_length_alone_reserves_no_memory() -> None:
    with (
        serving("--engine", "fake", constants={"rankd.server.app.WAITING_BODIES": 0.006}) as server,
        ExitStack() as held,
    ):
        for _ in range(5):
            held.enter_context(connect(server)).sendall(HEAD % 30_000_000 + b"{")
        time.sleep(0.3)
        reply = httpx.post(f"{server.url}/v1/rerank", content=BODY + b" " * 150_000)

    assert reply.status_code == 200
