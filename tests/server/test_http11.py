"""Requests with an `Upgrade` header keep their body (uvicorn#2722): recorded bytes, and Java."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from support.servers import Server, get, serving

JAVA = Path(__file__).with_name("java") / "Rerank.java"

BODY = b'{"query": "What is the capital of China?", "documents": ["Beijing is the capital."]}'
CHUNKED_BODY = b"54\r\n" + BODY + b"\r\n0\r\n\r\n"
TWO_MEGABYTES = json.dumps({"query": "q", "documents": ["a fox " * 400] * 900}).encode()

# As the HttpClient of JDK 17 sends them, byte for byte.
POST = (
    b"POST /v1/rerank HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: 84\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n"
    b"Content-Type: application/json\r\n"
    b"\r\n"
)
CHUNKED = (
    b"POST /v1/rerank HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
    b"Transfer-encoding: chunked\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n"
    b"Content-Type: application/json\r\n"
    b"\r\n"
)
EXPECT = POST.replace(b"84\r\n", b"84\r\nExpect: 100-Continue\r\n")
GET = (
    b"GET /livez HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: 0\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n"
    b"\r\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--engine", "fake", "--max-body-bytes", "4000000") as server:
        yield server


@pytest.mark.parametrize(
    "packets",
    [
        [POST, BODY],
        [POST + BODY],
        [POST[:60], POST[60:-1], POST[-1:] + BODY[:1], BODY[1:]],
        [bytes([byte]) for byte in POST + BODY],
        [CHUNKED + CHUNKED_BODY],
        [CHUNKED, CHUNKED_BODY],
        [bytes([byte]) for byte in CHUNKED + CHUNKED_BODY],
        [POST.replace(b"Upgrade, ", b"close, Upgrade, ") + BODY],
        [POST.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY],
        [POST.replace(b"Upgrade: h2c", b"UPGRADE: h2c\r\nupgrade: websocket") + BODY],
        [POST.replace(b"/v1/rerank", b"http://127.0.0.1:8000/v1/rerank?from=proxy") + BODY],
    ],
    ids=[
        "as Java sends it",
        "one packet",
        "split in the head",
        "byte by byte",
        "chunked",
        "chunked as Java may send it",
        "chunked byte by byte",
        "to be closed",
        "HTTP/1.0",
        "two offers",
        "absolute target",
    ],
)
def test_the_body_of_a_request_with_upgrade_arrives_complete(
    server: Server, packets: list[bytes]
) -> None:
    [(status, body)] = _talk(server, packets, replies=1)

    assert status == 200
    assert len(json.loads(body)["results"]) == 1


def test_a_body_after_100_continue_arrives_complete(server: Server) -> None:
    with _connect(server) as connection:
        replies = connection.makefile("rb")
        connection.sendall(EXPECT)
        interim = _reply(replies)
        connection.sendall(BODY)
        status, _ = _reply(replies)

    assert interim == (100, b"")
    assert status == 200


def test_a_large_body_arrives_complete(server: Server) -> None:
    head = POST.replace(b"84", b"%d" % len(TWO_MEGABYTES))

    [(status, body)] = _talk(server, [head + TWO_MEGABYTES], replies=1)

    assert status == 200
    assert len(json.loads(body)["results"]) == 900


def test_a_body_beyond_the_limit_is_a_413(server: Server) -> None:
    packet = CHUNKED + b"3d0901\r\n" + b"x" * 4_000_001 + b"\r\n0\r\n\r\n"

    [(status, body)] = _talk(server, [packet], replies=1)

    assert status == 413
    assert b"the limit is 4,000,000" in body


def test_several_upgrades_on_one_connection_are_all_answered(server: Server) -> None:
    plain = POST.replace(b"Upgrade: h2c\r\n", b"")
    requests = [POST + BODY, GET, CHUNKED + CHUNKED_BODY, plain + BODY, POST + BODY]

    with _connect(server) as connection:
        replies = connection.makefile("rb")
        statuses = []
        for request in requests:
            connection.sendall(request)
            statuses.append(_reply(replies)[0])

    assert statuses == [200] * 5


def test_pipelined_upgrades_are_answered_in_order(server: Server) -> None:
    missing = GET.replace(b"/livez", b"/missing")
    packet = POST + BODY + missing + CHUNKED + CHUNKED_BODY + GET

    replies = _talk(server, [packet], replies=4)

    assert [status for status, _ in replies] == [200, 404, 200, 200]
    assert replies[3][1] == b'{"status":"alive"}'


def test_a_body_is_never_parsed_as_a_request(server: Server) -> None:
    smuggled = b"GET /missing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    packets = [POST.replace(b"84", b"%d" % len(smuggled)), smuggled, GET]

    replies = _talk(server, packets, replies=2)

    assert [status for status, _ in replies] == [400, 200]  # Invalid JSON, then the GET; not a 404.


def test_an_upgrade_to_websocket_is_ignored(server: Server) -> None:
    offer = (
        b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    packets = [
        b"GET /v1/rerank HTTP/1.1\r\n" + offer + b"\r\n",
        b"POST /v1/rerank HTTP/1.1\r\n" + offer + b"Content-Length: 84\r\n\r\n" + BODY,
    ]

    replies = _talk(server, packets, replies=2)

    assert [status for status, _ in replies] == [405, 200]


@pytest.mark.parametrize("target", [b"example.com:443", b"/v1/rerank"])
def test_connect_is_refused_and_later_bytes_are_ignored(server: Server, target: bytes) -> None:
    packet = b"CONNECT " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET

    with _connect(server) as connection:
        connection.sendall(packet)
        answer = connection.makefile("rb").read()  # Until the connection is closed.

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_without_a_length_is_a_400(server: Server) -> None:
    with _connect(server) as connection:
        connection.sendall(CHUNKED.replace(b"chunked", b"gzip") + BODY)
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.0\r\nHost: localhost\r\nHost: other\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: local host\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
        b"GET http://localhost/livez HTTP/1.1\r\n\r\n",
        b"GET /livez\r\n\r\n",
    ],
    ids=["no host", "two", "two in HTTP/1.0", "a blank", "a user", "absolute", "HTTP/0.9"],
)
def test_a_request_without_exactly_one_host_is_a_400(server: Server, head: bytes) -> None:
    """RFC 9112, 3.2."""
    with _connect(server) as connection:
        connection.sendall(head)
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP" in answer.partition(b"\r\n\r\n")[2] or b"Host" in answer


def test_http_1_0_needs_no_host(server: Server) -> None:
    with serving("--engine", "fake", "--host", "0.0.0.0") as anywhere:
        port = int(anywhere.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_the_host_of_an_absolute_target_counts_and_not_the_header(server: Server) -> None:
    """RFC 9112, 3.2.2."""
    line = b"GET http://%s/livez HTTP/1.1\r\nHost: %s\r\n\r\n"
    packets = [line % (b"localhost:1", b"evil.example"), line % (b"evil.example", b"localhost")]

    replies = _talk(server, packets, replies=2)

    assert [status for status, _ in replies] == [200, 403]


@pytest.mark.parametrize("path", [b"/v1/rerank%0a", b"/v1/rerank%0A", b"/voyage/v1/rerank%0a"])
def test_a_newline_behind_a_path_is_part_of_the_path(server: Server, path: bytes) -> None:
    [(status, _)] = _talk(server, [POST.replace(b"/v1/rerank", path) + BODY], replies=1)

    assert status == 404


def test_head_and_body_are_sent_together(server: Server) -> None:
    # A proxy cannot send a request to another server once it has passed on the head.
    with _connect(server) as connection:
        for _ in range(300):
            connection.sendall(POST + BODY)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")

            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: %d\r" % len(body) in head.lower() + b"\r"


def test_the_answer_to_head_has_no_body(server: Server) -> None:
    with _connect(server) as connection:
        connection.sendall(b"HEAD /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 2)
        connection.sendall(b"HEAD /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        answers = connection.makefile("rb").read()

    heads = answers.split(b"\r\n\r\n")
    assert [head[:13] for head in heads] == [b"HTTP/1.1 200 "] * 3 + [b""]


def test_disconnects_during_a_request_log_no_errors() -> None:
    with serving("--engine", "fake") as server:
        for sent in (POST[:200], POST, POST + BODY[:20], CHUNKED + CHUNKED_BODY[:20], EXPECT):
            with _connect(server) as connection:
                connection.sendall(sent)
                time.sleep(0.05)
        [(status, _)] = _talk(server, [POST, BODY], replies=1)
        metrics = get(f"{server.url}/metrics").text
        _, errors = server.stop(signal.SIGTERM)

    assert status == 200
    assert "rankd_documents_total 1.0" in metrics
    assert "Traceback" not in errors
    assert "upgrade" not in errors.lower()  # uvicorn would warn for every request of Java.


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK, 11 or newer")
def test_the_http_client_of_the_jdk_works(server: Server) -> None:
    ran = subprocess.run(
        ["java", str(JAVA), server.url], capture_output=True, text=True, timeout=120, check=False
    )

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        *["post HTTP_1_1 200 3"] * 3,
        "chunked HTTP_1_1 200 3",
        "expect HTTP_1_1 200 3",
        "large HTTP_1_1 200 900",
        *["async HTTP_1_1 200 3"] * 8,
        "get HTTP_1_1 200 0",
    ]


def _talk(server: Server, packets: Iterable[bytes], *, replies: int) -> list[tuple[int, bytes]]:
    """Send packets on one connection, then read this many replies: status and body."""
    with _connect(server) as connection:
        for packet in packets:
            connection.sendall(packet)
            time.sleep(0.002)  # So that packets arrive separately.
        stream = connection.makefile("rb")
        return [_reply(stream) for _ in range(replies)]


def _connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _reply(stream: BinaryIO) -> tuple[int, bytes]:
    status = int(stream.readline().split()[1])
    headers = dict(line.lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
    return status, stream.read(int(headers.get(b"content-length", 0)))
