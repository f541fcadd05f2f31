"""The Python clients, against a running rankd and against servers that misbehave."""

from __future__ import annotations

import asyncio
import math
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import httpx
import pytest

from rankd.client import (
    AsyncClient,
    BadAnswer,
    BadRequest,
    Client,
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
from rankd.client.payloads import rerank_response
from support.servers import serving

QUERY = "What is the capital of China?"
DOCUMENTS = [
    "Gravity is a force that attracts two bodies towards each other.",
    "What is the capital of China? Beijing is the capital of China.",
]

GOOD = (
    b'{"id":"rerank-1","object":"rerank","created":1,"model":"m","meta":{},'
    b'"results":[{"index":0,"relevance_score":0.5,"document":{"text":"d"}}],'
    b'"usage":{"prompt_tokens":7,"total_tokens":7}}'
)

Asking = Callable[..., Any]


def sync(url: str, act: Callable[[Any], Any], **settings: Any) -> Any:
    """What a call gets from `Client`."""
    with Client(url, **settings) as client:
        return act(client)


def asynchronous(url: str, act: Callable[[Any], Any], **settings: Any) -> Any:
    """What the same call gets from `AsyncClient`."""

    async def scene() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await act(client)

    return asyncio.run(scene())


@pytest.fixture(params=[sync, asynchronous], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asking:
    """Either client; every promise is one of both."""
    asking: Asking = request.param
    return asking


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("--engine", "fake", "--max-documents", "500") as server:
        yield server.url


# Against rankd itself.


def test_the_best_document_comes_first_with_its_text(ask: Asking, url: str) -> None:
    answer = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS))

    assert [result.index for result in answer.results] == [1, 0]
    assert answer.results[0].document == DOCUMENTS[1]
    assert 1 >= answer.results[0].relevance_score > answer.results[1].relevance_score >= 0
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    assert answer.id
    assert answer.model == "builtin"
    assert answer.warnings == ()


def test_documents_may_come_from_a_generator_and_as_mappings(ask: Asking, url: str) -> None:
    mappings = ({"text": text, "added": datetime.now(UTC)} for text in DOCUMENTS)

    answer = ask(url, lambda client: client.rerank(QUERY, mappings))

    assert answer.results[0].document == DOCUMENTS[1]


def test_options_reach_the_server(ask: Asking, url: str) -> None:
    answer = ask(
        url,
        lambda client: client.rerank(
            QUERY,
            [*DOCUMENTS, "one two three four five six seven eight"],
            top_n=2,
            return_documents=False,
            max_tokens_per_doc=4,
            raw_scores=True,
            instruction="Judge.",
            preset="default",
            priority=3,
            timeout_ms=60_000,
            partial=True,
            return_details=True,
            user="me",
            cache=False,
            timeout=30,
        ),
    )

    assert len(answer.results) == 2
    assert answer.results[0].document is None
    assert answer.results[1].relevance_score < 0  # A logit.
    assert any("was cut" in warning for warning in answer.warnings)
    assert not any("unknown field" in warning for warning in answer.warnings)
    assert answer.not_scored == ()


def test_who_wants_no_cache_gets_every_score_computed(ask: Asking, url: str) -> None:
    def cached() -> float:
        said = httpx.get(f"{url}/metrics").text
        return float(said.split("\nrankd_cached_documents_total ")[1].split("\n")[0])

    before = cached()
    ask(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    ask(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    known = cached()
    ask(url, lambda client: client.rerank(QUERY, DOCUMENTS, cache=False))
    ask(url, lambda client: client.score(QUERY, DOCUMENTS, cache=False))

    assert known >= before + len(DOCUMENTS)
    assert cached() == known


def test_usage_says_what_was_known_already(ask: Asking, url: str) -> None:
    ask(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    again = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS)).usage
    computed = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS, cache=False)).usage

    assert again.cached_tokens == again.prompt_tokens > 0
    assert computed.cached_tokens == 0


def test_documents_below_a_threshold_are_left_out_and_counted(ask: Asking, url: str) -> None:
    whole = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    least = whole.results[0].relevance_score

    answer = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS, score_threshold=least))

    assert answer.results == whole.results[:1]
    assert (whole.below_threshold, answer.below_threshold) == (0, len(DOCUMENTS) - 1)


def test_an_unknown_preset_is_a_bad_request(ask: Asking, url: str) -> None:
    for call in (
        lambda client: client.rerank(QUERY, DOCUMENTS, preset="code"),
        lambda client: client.score(QUERY, DOCUMENTS, preset="code"),
    ):
        with pytest.raises(BadRequest, match="preset 'code' is not known"):
            ask(url, call)


def test_a_normalized_score_is_read_where_there_is_one() -> None:
    result = {"index": 0, "relevance_score": 0.5}
    answer = rerank_response(
        {
            **{"id": "1", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}},
            "results": [result | {"normalized_score": 0.25}, result],
        }
    )

    assert [one.normalized_score for one in answer.results] == [0.25, None]


def test_a_partial_answer_says_what_it_lacks() -> None:
    answer = rerank_response(
        {
            "id": "1",
            "model": "m",
            "results": [{"index": 1, "relevance_score": 0.5}],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
            "meta": {
                "not_scored": [0, 2],
                "warnings": ["2 of 3 documents were not scored in time"],
            },
        }
    )

    assert answer.not_scored == (0, 2)


def test_fields_of_mappings_are_read(ask: Asking, url: str) -> None:
    documents = [{"title": text, "body": "Nothing."} for text in DOCUMENTS]

    every = ask(url, lambda client: client.rerank(QUERY, documents))
    titles = ask(url, lambda client: client.rerank(QUERY, documents, rank_fields=["title"]))

    assert titles.results[0].document == DOCUMENTS[1]
    assert "Nothing." in every.results[0].document


def test_a_long_document_is_read_in_chunks(ask: Asking, url: str) -> None:
    long = "and so on " * 3000 + DOCUMENTS[1]

    answer = ask(
        url,
        lambda client: client.rerank(
            QUERY, [long], max_tokens_per_doc=200, max_chunks_per_doc=99, overlap_tokens=20
        ),
    )
    cut = ask(url, lambda client: client.rerank(QUERY, [long], max_tokens_per_doc=200))

    assert answer.results[0].relevance_score > cut.results[0].relevance_score
    assert not any("unknown field" in warning for warning in answer.warnings)


def test_where_the_best_chunk_stands_is_told(ask: Asking, url: str) -> None:
    long = "🙂 and so on " * 3000 + DOCUMENTS[1]

    def details(**options: Any) -> Any:
        return ask(url, lambda client: client.rerank(QUERY, [long], **options)).results[0].details

    whole = details(truncation="chunk", max_tokens_per_doc=200, return_details=True)
    end = details(truncation_side="left", max_tokens_per_doc=200, return_details=True)

    assert not whole.truncated
    assert end.truncated
    assert whole.chunk.index == whole.chunk.of - 1 > 10
    assert whole.tokens > end.tokens > 200
    for found in (whole.chunk, end.chunk):
        assert long[found.start : found.end].endswith(DOCUMENTS[1][-10:])
    assert details() is None


def test_a_key_opens_the_server(ask: Asking) -> None:
    with serving("--engine", "fake", "--api-key", "sesame") as server:
        assert ask(server.url, lambda client: client.score("q", ["d"]), api_key="sesame").scores

        with pytest.raises(Unauthorized) as caught:
            ask(server.url, rerank, api_key="guess")

    assert caught.value.status == 401


def test_score_keeps_the_order_and_agrees_with_rerank(ask: Asking, url: str) -> None:
    scores = ask(url, lambda client: client.score(QUERY, DOCUMENTS)).scores
    results = ask(url, lambda client: client.rerank(QUERY, DOCUMENTS)).results

    assert scores == (results[1].relevance_score, results[0].relevance_score)


def test_score_takes_pairs_and_a_single_document(ask: Asking, url: str) -> None:
    pairs = ask(url, lambda client: client.score(["a fox", "a whale"], ["a fox", "a fox"]))
    single = ask(url, lambda client: client.score("a fox", "a fox", raw_scores=False))
    logit = ask(url, lambda client: client.score("a fox", {"text": "a fox"}, raw_scores=True))

    assert pairs.scores[0] > pairs.scores[1]
    assert single.scores == pairs.scores[:1]
    assert logit.scores[0] == pytest.approx(math.log(1 / (1 / single.scores[0] - 1)), rel=1e-4)
    assert logit.warnings == ()


def test_a_batch_keeps_the_order_and_gives_each_its_own_failure(ask: Asking, url: str) -> None:
    requests: list[RerankRequest] = [
        {"query": f"question {number}", "documents": [f"document {number}"]} for number in range(20)
    ]
    requests[7]["query"] = " "

    answers = ask(url, lambda client: client.batch(iter(requests), concurrency=4))

    assert isinstance(answers[7], BadRequest)
    assert answers[7].param == "query"
    del answers[7], requests[7]
    assert [answer.results[0].document for answer in answers] == [
        text for request in requests for text in request["documents"]
    ]


def test_models_and_health(ask: Asking, url: str) -> None:
    [model] = ask(url, lambda client: client.models())

    assert model.id == "builtin"
    assert model.max_model_len > 0
    assert ask(url, lambda client: client.health()) is True


def test_an_error_says_what_the_server_said(ask: Asking, url: str) -> None:
    with pytest.raises(BadRequest, match="priority") as caught:
        ask(url, lambda client: client.rerank(QUERY, DOCUMENTS, priority=1000))

    assert caught.value.status == 400
    assert caught.value.code == "invalid_request"
    assert caught.value.param == "priority"
    assert caught.value.request_id


def test_no_documents_are_the_server_s_to_refuse(ask: Asking, url: str) -> None:
    with pytest.raises(BadRequest, match="documents must not be empty"):
        ask(url, lambda client: client.rerank(QUERY, []))


def test_the_model_of_a_call_beats_the_client_s(ask: Asking, url: str) -> None:
    answer = ask(
        url, lambda client: client.rerank(QUERY, DOCUMENTS, model="default"), model="other"
    )

    assert answer.model == "default"


def test_half_a_surrogate_pair_is_sent_and_mended(ask: Asking, url: str) -> None:
    answer = ask(url, lambda client: client.rerank(QUERY, ["half an emoji: \ud83d", "北京"]))

    assert {result.document for result in answer.results} == {"half an emoji: \ufffd", "北京"}


def test_the_server_s_own_deadline_is_a_timeout(ask: Asking, url: str) -> None:
    documents = [f"document {number} " + "and so on " * 100 for number in range(500)]

    with pytest.raises(TimedOut) as caught:
        ask(url, lambda client: client.rerank(QUERY, documents, timeout_ms=1))

    assert caught.value.status == 504


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/"])
def test_the_address_may_end_as_people_write_it(ask: Asking, url: str, ending: str) -> None:
    assert ask(url + ending, lambda client: client.health())


def test_many_threads_share_a_client(url: str) -> None:
    documents = {number: f"document {number}" for number in range(32)}
    found: dict[int, str | None] = {}

    with Client(url) as client:

        def work(number: int) -> None:
            found[number] = client.rerank("q", [documents[number]]).results[0].document

        threads = [threading.Thread(target=work, args=[number]) for number in documents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == documents


def test_cancelling_leaves_the_client_usable(url: str) -> None:
    async def scene() -> bool:
        async with AsyncClient(url) as client:
            slow = asyncio.create_task(client.rerank(QUERY, ["and so on " * 500] * 500))
            await asyncio.sleep(0.05)
            slow.cancel()
            await asyncio.wait([slow])
            return slow.cancelled() and await client.health()

    assert asyncio.run(scene())


# Against a server that answers from a script.


@dataclass
class Line:
    """One answer of the script."""

    status: int = 200
    body: bytes = GOOD
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drops: bool = False
    closes: bool = False
    drips: bool = False


@dataclass
class Stage:
    """A server that reads its script, and what it saw.

    Attributes:
        connections: how many were opened.
        heard: headers of every request, and the time.
    """

    script: list[Line]
    url: str = ""
    connections: int = 0
    heard: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    @property
    def waits(self) -> list[float]:
        times = [at for at, _ in self.heard]
        return [after - before for before, after in pairwise(times)]


@contextmanager
def playing(*script: Line) -> Iterator[Stage]:
    """The last line is repeated."""
    stage = Stage(list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            stage.connections += 1
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stage.heard.append((time.monotonic(), dict(self.headers)))
            line = stage.script.pop(0) if len(stage.script) > 1 else stage.script[0]
            time.sleep(line.delay)
            self.close_connection = line.drops or line.closes
            if not line.drops:
                self._say(line)

        do_GET = do_POST

        def _say(self, line: Line) -> None:
            self.send_response(line.status)
            for name, value in line.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(line.body)))
            self.end_headers()
            step = 1 if line.drips else len(line.body) or 1
            try:
                for start in range(0, len(line.body), step):
                    self.wfile.write(line.body[start : start + step])
                    time.sleep(0.1 if line.drips else 0)
            except OSError:
                self.close_connection = True  # The client gave up, as it should.

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stage.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield stage
        finally:
            server.shutdown()
            thread.join()


def rerank(client: Any) -> Any:
    return client.rerank("q", ["d"])


def test_one_connection_serves_many_calls(ask: Asking) -> None:
    requests: list[RerankRequest] = [{"query": "q", "documents": ["d"]}] * 5

    with playing(Line()) as stage:
        ask(stage.url, lambda client: client.batch(requests, concurrency=1))

    assert len(stage.heard) == 5
    assert stage.connections == 1


def test_a_batch_opens_no_more_connections_than_it_may(ask: Asking) -> None:
    requests: list[RerankRequest] = [{"query": "q", "documents": ["d"]}] * 30

    with playing(Line(delay=0.01)) as stage:
        answers = ask(stage.url, lambda client: client.batch(requests, concurrency=3))

    assert len(answers) == len(stage.heard) == 30
    assert 1 < stage.connections <= 3


def test_a_retry_keeps_its_connection(ask: Asking) -> None:
    with playing(Line(503, headers={"Retry-After": "0"}), Line()) as stage:
        ask(stage.url, rerank)

    assert len(stage.heard) == 2
    assert stage.connections == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(ask: Asking, status: int) -> None:
    with playing(Line(status), Line(status), Line()) as stage:
        answer = ask(stage.url, rerank)

    assert answer.results[0].document == "d"
    first, second = stage.waits
    assert first >= 0.25
    assert second >= 0.5


@pytest.mark.parametrize(("status", "error"), [(429, Overloaded), (503, Unavailable)])
def test_retries_end(ask: Asking, status: int, error: type[RankdError]) -> None:
    busy = Line(status, headers={"Retry-After": "0", "X-Request-Id": "r-7"}, body=b"<html>")

    with playing(busy) as stage, pytest.raises(error, match="<html>") as caught:
        ask(stage.url, rerank, retries=2)

    assert len(stage.heard) == 3
    assert caught.value.status == status
    assert caught.value.request_id == "r-7"
    assert caught.value.retry_after == 0


def test_retry_after_in_seconds_is_waited_for(ask: Asking) -> None:
    with playing(Line(429, headers={"Retry-After": "1"}), Line()) as stage:
        ask(stage.url, rerank)

    assert stage.waits[0] >= 1


def test_retry_after_as_a_date_is_waited_for(ask: Asking) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)

    with playing(Line(503, headers={"Retry-After": later}), Line()) as stage:
        ask(stage.url, rerank)

    assert stage.waits[0] >= 0.9  # Dates have whole seconds.


def test_a_wait_that_outlasts_the_timeout_is_not_begun(ask: Asking) -> None:
    began = time.monotonic()

    with (
        playing(Line(429, headers={"Retry-After": "20"})) as stage,
        pytest.raises(Overloaded) as caught,
    ):
        ask(stage.url, rerank, timeout=5)

    assert time.monotonic() - began < 4
    assert len(stage.heard) == 1
    assert caught.value.retry_after == 20


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
def test_what_a_retry_cannot_mend_is_raised_at_once(
    ask: Asking, status: int, error: type[RankdError]
) -> None:
    with (
        playing(Line(status, headers={"Retry-After": "0"}, body=b"{}")) as stage,
        pytest.raises(error) as caught,
    ):
        ask(stage.url, rerank)

    assert type(caught.value) is error
    assert caught.value.status == status
    assert len(stage.heard) == 1


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
def test_other_servers_errors_are_read_as_well_as_may_be(
    ask: Asking, body: bytes, message: str
) -> None:
    with playing(Line(400, body=body)) as stage, pytest.raises(BadRequest) as caught:
        ask(stage.url, rerank)

    assert re.fullmatch(message, caught.value.message)
    assert caught.value.code is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>Welcome</html>", b"[]", b"null", b'{"results":[{"index":"x"}]}', b"\xff"]
)
def test_garbage_is_a_bad_answer_and_not_asked_for_again(ask: Asking, body: bytes) -> None:
    with playing(Line(body=body)) as stage, pytest.raises(BadAnswer, match="answered what rankd"):
        ask(stage.url, rerank)

    assert len(stage.heard) == 1


def test_a_body_that_is_not_what_its_encoding_says_is_a_bad_answer(ask: Asking) -> None:
    with (
        playing(Line(headers={"Content-Encoding": "gzip"})) as stage,
        pytest.raises(BadAnswer, match="cannot be read"),
    ):
        ask(stage.url, rerank)


def test_a_dropped_connection_is_not_tried_again(ask: Asking) -> None:
    with playing(Line(drops=True)) as stage, pytest.raises(ConnectionLost):
        ask(stage.url, rerank)

    assert len(stage.heard) == 1


def test_a_connection_closed_while_idle_is_replaced(ask: Asking) -> None:
    def slowly() -> Iterator[RerankRequest]:
        for _ in range(3):
            yield {"query": "q", "documents": ["d"]}
            time.sleep(0.2)

    with playing(Line(closes=True)) as stage:
        answers = ask(stage.url, lambda client: client.batch(slowly(), concurrency=1))

    assert not [answer for answer in answers if isinstance(answer, RankdError)]
    assert stage.connections == 3


def test_a_closed_port_is_tried_again(ask: Asking) -> None:
    with playing(Line()) as stage:
        pass
    began = time.monotonic()

    with pytest.raises(ConnectionFailed, match="cannot connect") as caught:
        ask(stage.url, rerank)

    assert type(caught.value) is ConnectionFailed
    assert time.monotonic() - began >= 0.75
    assert ask(stage.url, lambda client: client.health()) is False


def test_a_server_that_starts_meanwhile_is_reached(ask: Asking) -> None:
    with playing(Line()) as stage:
        port = int(stage.url.rsplit(":", 1)[1])
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
        answer = ask(stage.url, rerank, retries=4)
    finally:
        thread.join()
        opened[0].server_close()

    assert answer.results[0].relevance_score == 0.5


def test_a_slow_answer_ends_with_the_timeout(ask: Asking) -> None:
    began = time.monotonic()

    with (
        playing(Line(delay=3)) as stage,
        pytest.raises(TimedOut, match=r"within 0\.3 seconds") as caught,
    ):
        ask(stage.url, rerank, timeout=0.3)

    assert time.monotonic() - began < 2
    assert caught.value.status is None
    assert len(stage.heard) == 1


def test_a_dripping_answer_ends_with_the_timeout(ask: Asking) -> None:
    began = time.monotonic()

    with playing(Line(drips=True)) as stage, pytest.raises(TimedOut):
        ask(stage.url, lambda client: client.rerank("q", ["d"], timeout=0.5))

    assert time.monotonic() - began < 4


def test_the_timeout_covers_the_retries_too(ask: Asking) -> None:
    began = time.monotonic()

    with (
        playing(Line(503, delay=0.4, headers={"Retry-After": "0"})) as stage,
        pytest.raises((TimedOut, Unavailable)),
    ):
        ask(stage.url, rerank, timeout=1, retries=50)

    assert time.monotonic() - began < 4
    assert len(stage.heard) <= 3


def test_the_key_and_the_headers_are_sent(ask: Asking) -> None:
    with playing(Line()) as stage:
        ask(stage.url, rerank, api_key=" secret\n", headers={"X-Request-Id": "mine"})

    [(_, headers)] = stage.heard
    assert headers["Authorization"] == "Bearer secret"
    assert headers["X-Request-Id"] == "mine"
    assert headers["User-Agent"].startswith("rankd-python/")


def test_a_server_that_cannot_score_is_not_healthy_and_asked_once(ask: Asking) -> None:
    with playing(Line(503, headers={"Retry-After": "0"})) as stage:
        assert ask(stage.url, lambda client: client.health()) is False

    assert len(stage.heard) == 1


# Mistakes of the caller.


def test_one_string_is_not_a_list_of_documents(ask: Asking, url: str) -> None:
    with pytest.raises(TypeError, match="give a list"):
        ask(url, lambda client: client.rerank("q", "document"))
    with pytest.raises(TypeError, match="give a list"):
        ask(url, lambda client: client.batch([{"query": "q", "documents": "document"}]))


def test_a_misspelled_option_is_refused(ask: Asking, url: str) -> None:
    with pytest.raises(TypeError, match="'top_k'"):
        ask(url, lambda client: client.rerank("q", ["d"], top_k=3))
    with pytest.raises(TypeError, match="'top_n'"):
        ask(url, lambda client: client.score("q", ["d"], top_n=3))


def test_no_concurrency_is_refused(ask: Asking, url: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ask(url, lambda client: client.batch([], concurrency=0))


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(address)


# What the clients are made of.


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
def test_retry_after_is_read_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert _retry_after(header) == seconds


def test_waits_grow_and_end_at_the_cap() -> None:
    assert 30 <= _wait(0, 3600) <= 30.1
    for tried in (0, 1, 2, 4, 10_000):
        longest = min(0.5 * 2 ** min(tried, 10), 8)
        assert longest / 2 <= _wait(tried, None) <= longest


def test_an_error_survives_another_process() -> None:
    problem = pickle.loads(pickle.dumps(Overloaded("later", status=429, retry_after=2)))

    assert str(problem) == "later"
    assert (problem.status, problem.retry_after) == (429, 2)


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_client_loads_nothing_of_the_server() -> None:
    ended = python(
        "import sys, rankd.client\n"
        "print(*(name for name in sys.modules if name.startswith('rankd.')))\n"
        "print(*sys.modules.keys() & {'fastapi', 'pydantic', 'uvicorn', 'tokenizers', 'torch'})"
    )

    ours, heavy = ended.stdout.splitlines()
    assert all(name.startswith("rankd.client") for name in ours.split())
    assert heavy == ""


def test_without_httpx_it_says_what_to_install() -> None:
    ended = python("import sys; sys.modules['httpx'] = None; import rankd.client")

    assert "ImportError: rankd.client needs httpx: pip install 'rankd[client]'" in ended.stderr
