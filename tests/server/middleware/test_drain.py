"""The drain: requests in flight are answered, new ones refused, the exit status is 0."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.server.app import open_app
from support.servers import Server, serving

BODY = {"query": "What is the capital of China?", "documents": ["Beijing is the capital."]}
FAKE = ("--engine", "fake")
MODEL = ("--self-check", "off", "--batch-tokens", "512")

# Paths of readiness checks, also those of vendors' clients.
READINESS = [
    "/readyz",
    "/health",
    "/",
    "/ping",
    "/v1/health/ready",
    "/.well-known/ready",
    "/voyage/health",
]


@pytest.fixture(scope="module")
def stopping() -> Iterator[TestClient]:
    """The app on the fake engine, after the drain has begun."""
    with asyncio.Runner() as runner:
        context = open_app(Settings(engine="fake"))
        app: FastAPI = runner.run(context.__aenter__())
        app.state.service.drain.begin()
        yield TestClient(app, raise_server_exceptions=False)
        runner.run(context.__aexit__(None, None, None))


class Post(threading.Thread):
    """A request in flight."""

    def __init__(self, server: Server, body: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._url = f"{server.url}/v1/rerank"
        self._body = body
        self.reply: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self.reply = httpx.post(self._url, json=self._body, timeout=120)

    def answer(self) -> httpx.Response:
        self.join(timeout=120)
        assert self.reply is not None, "no answer came"
        return self.reply


def _long(documents: int) -> dict[str, Any]:
    texts = [f"document {number} " + "and so on " * 100 for number in range(documents)]
    return {"query": "q", "documents": texts}


def _until_not_ready(server: Server) -> httpx.Response:
    for _ in range(200):
        reply = httpx.get(f"{server.url}/readyz", timeout=30)
        if reply.status_code == 503:
            return reply
        time.sleep(0.02)
    raise AssertionError("/readyz stayed 200")


# Responses of a draining app.


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_a_new_request_is_a_503_in_the_format_of_its_dialect(
    stopping: TestClient, dialect: Dialect
) -> None:
    path = dialect.prefix + [*dialect.mounted, *dialect.paths][0]
    body = dialect.Request.model_json_schema()["example"]

    reply = stopping.post(path.replace("{model:path}", "some-id"), json=body)

    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json()["message"] == "the server is stopping; ask another, or this one later"
    TypeAdapter(dialect.failure).validate_python(reply.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "q", "text_2": "d"}),
        ("/invocations", {"text_1": "q", "text_2": "d"}),
        ("/simple/batch_rerank", {"queries": ["q"], "documents": ["d"]}),
    ],
)
def test_scores_and_batches_are_refused_too(
    stopping: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = stopping.post(path, json=body)

    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json()["error"]["code"] == "shutting_down"


@pytest.mark.parametrize("path", READINESS)
def test_every_readiness_check_is_a_503(stopping: TestClient, path: str) -> None:
    assert stopping.get(path).status_code == 503


@pytest.mark.parametrize(
    "path", ["/livez", "/metrics", "/version", "/v1/health/live", "/.well-known/live"]
)
def test_liveness_checks_still_succeed(stopping: TestClient, path: str) -> None:
    assert stopping.get(path).status_code in (200, 204)


# Server processes and signals.


def test_requests_in_flight_are_answered_and_new_ones_refused() -> None:
    with serving(*MODEL) as server, httpx.Client(timeout=30) as kept, httpx.Client() as idle:
        assert kept.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
        assert idle.get(f"{server.url}/livez").status_code == 200
        running = Post(server, _long(300))
        time.sleep(0.7)

        server.process.send_signal(signal.SIGTERM)
        not_ready = _until_not_ready(server)
        refused = kept.post(f"{server.url}/v1/rerank", json=BODY)
        new = httpx.post(f"{server.url}/tei/rerank", json={"query": "q", "texts": ["d"]})
        alive = httpx.get(f"{server.url}/livez")
        still_running = running.reply is None
        answer = running.answer()
        status, errors = server.ended()

    assert still_running, "the request in flight was too short for this test"
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 300
    assert answer.headers["connection"] == "close"
    assert int(not_ready.headers["retry-after"]) > 0
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["connection"] == "close"
    assert refused.json()["error"]["code"] == "shutting_down"
    assert (new.status_code, new.json()["error_type"]) == (503, "Unhealthy")
    assert alive.status_code == 200
    assert alive.headers["connection"] == "close"
    assert status == 0
    assert "stopping; requests in flight: 1, time limit: 30 seconds" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_the_port_stays_open_for_the_drain_delay() -> None:
    with serving(*FAKE, "--drain-delay-seconds", "6") as server:
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _until_not_ready(server)
        time.sleep(1)
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY)
        status, errors = server.ended()
        stayed = time.monotonic() - began

    assert reply.status_code == 503
    assert status == 0
    assert 5.9 < stayed < 60
    assert "Traceback" not in errors


def test_without_requests_in_flight_the_server_exits_at_once() -> None:
    with serving(*FAKE, "--drain-seconds", "300") as server, httpx.Client() as idle:
        assert idle.get(f"{server.url}/livez").status_code == 200
        began = time.monotonic()
        status, errors = server.stop(signal.SIGTERM)

    assert status == 0
    assert time.monotonic() - began < 200  # Without waiting for the idle connection.
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_second_signal_stops_the_server_and_answers_requests_with_503() -> None:
    with serving(*MODEL, "--drain-seconds", "300", "--drain-delay-seconds", "300") as server:
        running = Post(server, _long(1000))
        time.sleep(0.7)
        server.process.send_signal(signal.SIGTERM)
        _until_not_ready(server)
        began = time.monotonic()
        status, errors = server.stop(signal.SIGTERM)
        took = time.monotonic() - began
        answer = running.answer()

    assert status == 0
    assert took < 100  # Of 300 seconds.
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    assert int(answer.headers["retry-after"]) > 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_request_that_exceeds_the_drain_time_is_a_503_with_the_reason() -> None:
    with serving(*MODEL, "--drain-seconds", "1") as server:
        running = Post(server, _long(1000))
        time.sleep(0.7)
        status, errors = server.stop(signal.SIGTERM)
        answer = running.answer()

    assert status == 0
    assert answer.status_code == 503
    assert "could not finish in time" in answer.json()["message"]
    assert int(answer.headers["retry-after"]) > 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_an_incomplete_body() -> None:
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 34\r\n\r\n"
    with serving(*FAKE, "--drain-seconds", "300") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head + b'{"query": "q",')
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1)  # No request is admitted: the port is closed, only the body is missing.
            server.process.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        status, errors = server.ended()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert status == 0
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False], ids=["completed", "never completed"])
def test_a_body_that_arrives_during_the_drain_gets_a_503(finished: bool) -> None:
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 34\r\n\r\n"
    with serving(*FAKE, "--drain-seconds", "2") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head + b'{"query": "q",')
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            if finished:
                time.sleep(0.3)
                connection.sendall(b' "documents": ["d"]}')
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        status, errors = server.ended()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting_down" in answer
    assert b"connection: close" in answer
    assert status == 0
    assert "Traceback" not in errors
