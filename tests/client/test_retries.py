"""Retries, timeouts and connections of the Python clients, against a scripted server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rankd.client import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    Overloaded,
    RankdError,
    RerankRequest,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from rankd.client.call import _retry_after, _wait
from support.scripted_server import GOOD, CallClient, rerank, scripted_server
from support.scripted_server import ScriptedReply as Reply


def test_one_connection_serves_many_calls(call: CallClient) -> None:
    requests: list[RerankRequest] = [{"query": "q", "documents": ["d"]}] * 5

    with scripted_server(Reply()) as server:
        call(server.url, lambda client: client.batch(requests, concurrency=1))

    assert len(server.requests) == 5
    assert server.connections == 1


def test_a_batch_opens_at_most_one_connection_per_concurrent_request(call: CallClient) -> None:
    requests: list[RerankRequest] = [{"query": "q", "documents": ["d"]}] * 30

    with scripted_server(Reply(delay=0.01)) as server:
        answers = call(server.url, lambda client: client.batch(requests, concurrency=3))

    assert len(answers) == len(server.requests) == 30
    assert 1 < server.connections <= 3


def test_a_retry_keeps_its_connection(call: CallClient) -> None:
    with scripted_server(Reply(503, headers={"Retry-After": "0"}), Reply()) as server:
        call(server.url, rerank)

    assert len(server.requests) == 2
    assert server.connections == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_retried(call: CallClient, status: int) -> None:
    with scripted_server(Reply(status), Reply(status), Reply()) as server:
        answer = call(server.url, rerank)

    assert answer.results[0].document == "d"
    first, second = server.waits
    assert first >= 0.25
    assert second >= 0.5


@pytest.mark.parametrize(("status", "error"), [(429, Overloaded), (503, Unavailable)])
def test_the_last_error_is_raised_after_all_retries(
    call: CallClient, status: int, error: type[RankdError]
) -> None:
    busy = Reply(status, headers={"Retry-After": "0", "X-Request-Id": "r-7"}, body=b"<html>")

    with scripted_server(busy) as server, pytest.raises(error, match="<html>") as caught:
        call(server.url, rerank, retries=2)

    assert len(server.requests) == 3
    assert caught.value.status == status
    assert caught.value.request_id == "r-7"
    assert caught.value.retry_after == 0


def test_the_client_waits_for_a_retry_after_in_seconds(call: CallClient) -> None:
    with scripted_server(Reply(429, headers={"Retry-After": "1"}), Reply()) as server:
        call(server.url, rerank)

    assert server.waits[0] >= 1


@pytest.mark.slow
def test_the_client_waits_for_a_retry_after_with_a_date(call: CallClient) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)

    with scripted_server(Reply(503, headers={"Retry-After": later}), Reply()) as server:
        call(server.url, rerank)

    assert server.waits[0] >= 0.9  # Dates have whole seconds.


def test_the_error_is_raised_at_once_if_the_wait_would_exceed_the_timeout(call: CallClient) -> None:
    began = time.monotonic()

    with (
        scripted_server(Reply(429, headers={"Retry-After": "30"})) as server,
        pytest.raises(Overloaded) as caught,
    ):
        call(server.url, rerank, timeout=25)

    assert time.monotonic() - began < 20
    assert len(server.requests) == 1
    assert caught.value.retry_after == 30


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Unauthorized),
        (413, BadRequest),
        (422, BadRequest),
        (500, ServerFault),
        (502, ServerFault),
        (504, TimedOut),
        (302, BadAnswer),
    ],
)
def test_permanent_errors_are_raised_without_a_retry(
    call: CallClient, status: int, error: type[RankdError]
) -> None:
    with (
        scripted_server(Reply(status, headers={"Retry-After": "0"}, body=b"{}")) as server,
        pytest.raises(error) as caught,
    ):
        call(server.url, rerank)

    assert type(caught.value) is error
    assert caught.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","code":400}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"detail":"no"}', "no"),
        (b'{"detail":[{"msg":"no"}]}', "HTTP 400 from .*"),
        (b"", "HTTP 400 from .*: an empty body"),
        (b"[]", "HTTP 400 from .*"),
    ],
)
def test_the_message_is_read_from_errors_of_other_servers(
    call: CallClient, body: bytes, message: str
) -> None:
    with scripted_server(Reply(400, body=body)) as server, pytest.raises(BadRequest) as caught:
        call(server.url, rerank)

    assert re.fullmatch(message, caught.value.message)
    assert caught.value.code is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>Welcome</html>", b"[]", b"null", b'{"results":[{"index":"x"}]}', b"\xff"]
)
def test_an_unexpected_body_is_a_bad_answer_without_a_retry(call: CallClient, body: bytes) -> None:
    with (
        scripted_server(Reply(body=body)) as server,
        pytest.raises(BadAnswer, match="answered, but not as rankd does"),
    ):
        call(server.url, rerank)

    assert len(server.requests) == 1


def test_a_body_that_does_not_match_its_encoding_is_a_bad_answer(call: CallClient) -> None:
    with (
        scripted_server(Reply(headers={"Content-Encoding": "gzip"})) as server,
        pytest.raises(BadAnswer, match="cannot be decoded"),
    ):
        call(server.url, rerank)


def test_a_dropped_connection_is_not_retried(call: CallClient) -> None:
    with scripted_server(Reply(drops=True)) as server, pytest.raises(ConnectionLost):
        call(server.url, rerank)

    assert len(server.requests) == 1


def test_a_connection_closed_while_idle_is_replaced(call: CallClient) -> None:
    def slowly() -> Iterator[RerankRequest]:
        for _ in range(3):
            yield {"query": "q", "documents": ["d"]}
            time.sleep(0.2)

    with scripted_server(Reply(closes=True)) as server:
        answers = call(server.url, lambda client: client.batch(slowly(), concurrency=1))

    assert not [answer for answer in answers if isinstance(answer, RankdError)]
    assert server.connections == 3


def test_a_refused_connection_is_retried(call: CallClient) -> None:
    with scripted_server(Reply()) as server:
        pass
    began = time.monotonic()

    with pytest.raises(ConnectionFailed, match="cannot connect") as caught:
        call(server.url, rerank)

    assert type(caught.value) is ConnectionFailed
    assert time.monotonic() - began >= 0.75
    assert call(server.url, lambda client: client.health()) is False


def test_a_server_that_starts_during_the_retries_is_reached(call: CallClient) -> None:
    with scripted_server(Reply()) as server:
        port = int(server.url.rsplit(":", 1)[1])
    opened: list[ThreadingHTTPServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(GOOD)

        def log_message(self, *_: Any) -> None:
            pass

    def start() -> None:
        time.sleep(0.1)
        opened.append(ThreadingHTTPServer(("127.0.0.1", port), Handler))
        opened[0].handle_request()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        answer = call(server.url, rerank, retries=4)
    finally:
        thread.join()
        opened[0].server_close()

    assert answer.results[0].relevance_score == 0.5


def test_a_slow_response_raises_timed_out(call: CallClient) -> None:
    began = time.monotonic()

    with (
        scripted_server(Reply(delay=30)) as server,
        pytest.raises(TimedOut, match=r"within 0\.3 seconds") as caught,
    ):
        call(server.url, rerank, timeout=0.3)

    assert time.monotonic() - began < 15
    assert caught.value.status is None
    assert len(server.requests) == 1


def test_a_response_sent_byte_by_byte_raises_timed_out(call: CallClient) -> None:
    began = time.monotonic()

    with scripted_server(Reply(drips=True)) as server, pytest.raises(TimedOut):
        call(server.url, lambda client: client.rerank("q", ["d"], timeout=0.5))

    assert time.monotonic() - began < 12


@pytest.mark.slow
def test_the_timeout_covers_all_retries(call: CallClient) -> None:
    began = time.monotonic()

    with (
        scripted_server(Reply(503, delay=0.4, headers={"Retry-After": "0"})) as server,
        pytest.raises((TimedOut, Unavailable)),
    ):
        call(server.url, rerank, timeout=1, retries=50)

    assert time.monotonic() - began < 12
    assert len(server.requests) <= 3


def test_api_key_and_headers_are_sent(call: CallClient) -> None:
    with scripted_server(Reply()) as server:
        call(server.url, rerank, api_key=" secret\n", headers={"X-Request-Id": "mine"})

    [(_, headers)] = server.requests
    assert headers["Authorization"] == "Bearer secret"
    assert headers["X-Request-Id"] == "mine"
    assert headers["User-Agent"].startswith("rankd-python/")


def test_health_is_false_without_a_retry_if_the_server_cannot_score(call: CallClient) -> None:
    with scripted_server(Reply(503, headers={"Retry-After": "0"})) as server:
        assert call(server.url, lambda client: client.health()) is False

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3),
        ("0.5", 0.5),
        ("-3", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    header: str | None, seconds: float | None
) -> None:
    assert _retry_after(header) == seconds


def test_waits_double_up_to_the_maximum() -> None:
    assert 30 <= _wait(0, 3600) <= 30.1
    for tried in (0, 1, 2, 4, 10_000):
        limit = min(0.5 * 2 ** min(tried, 10), 8)
        assert limit / 2 <= _wait(tried, None) <= limit
