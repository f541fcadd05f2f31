"""deploy/nginx, in Debian's nginx, before two live servers."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from rankd.config.settings import Settings
from support.nginx_server import FILES, Line, Nginx, judged, running, written
from support.programs import program
from support.servers import Server, free_port, serving

pytestmark = pytest.mark.deploy

# One thread each, and nothing remembered: every answer is computed.
MODEL = ("--threads", "1", "--cache-mb", "0", "--no-access-log")
CLIENTS = 4

FACTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other.",
    "Bread is baked from flour, water, salt and yeast.",
    "Python is a programming language.",
]


def asked(number: int) -> dict[str, object]:
    """Requests of 4 to 40 documents."""
    documents = [f"{text} ({part})" for part in range(number % 10 + 1) for text in FACTS]
    return {"query": "What is the capital of China?", "documents": documents}


def scores(reply: httpx.Response) -> list[tuple[int, float]]:
    return [(one["index"], one["relevance_score"]) for one in reply.json()["results"]]


@dataclass
class Load:
    """Clients that ask until they are told to stop, and compare every answer.

    Attributes:
        answered: requests with the right answer.
        failures: what was wrong with all others.
        slowest: seconds of the slowest request.
    """

    url: str
    right: list[list[tuple[int, float]]]
    answered: int = 0
    slowest: float = 0
    failures: list[str] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        clients = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._enough.set()
            for client in clients:
                client.join()

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=60) as http:
            while not self._enough.is_set():
                number += 1
                began = time.monotonic()
                problem = self._problem(http, number % len(self.right))
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    if problem:
                        self.failures.append(problem)
                    else:
                        self.answered += 1
                time.sleep(0.02)  # A server that starts again needs some of the processor, too.

    def _problem(self, http: httpx.Client, number: int) -> str | None:
        """What is wrong with the answer to one request."""
        try:
            reply = http.post(f"{self.url}/v1/rerank", json=asked(number))
        except httpx.HTTPError as problem:
            return repr(problem)
        if reply.status_code != 200:
            return f"{reply.status_code} {reply.text[:300]}"
        expected, got = self.right[number], scores(reply)
        if dict(got) != pytest.approx(dict(expected), abs=1e-3):
            return f"other scores: {got} and not {expected}"
        return None


def test_under_load_one_server_is_killed_and_one_restarted_and_no_request_fails(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = request.config.getoption("--deploy-seconds")
    ports = [free_port(), free_port()]
    front = free_port()
    main = written(tmp_path, ports, front)
    with ExitStack() as held:
        first, second = (held.enter_context(serving(*MODEL, port=port)) for port in ports)
        nginx = held.enter_context(running(main, front))
        right = [
            scores(httpx.post(f"{first.url}/v1/rerank", json=asked(number), timeout=60))
            for number in range(10)
        ]
        load = Load(nginx.url, right)
        began = time.monotonic()
        with load.running():
            time.sleep(seconds / 4)
            _until_both_answer(nginx, ports)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            time.sleep(seconds / 8)
            held.enter_context(serving(*MODEL, port=ports[0]))
            _until_both_answer(nginx, ports)
            time.sleep(seconds / 4)
            second.stop(signal.SIGTERM)
            held.enter_context(serving(*MODEL, port=ports[1]))
            _until_both_answer(nginx, ports)
            time.sleep(max(0, seconds - (time.monotonic() - began)))
        took = time.monotonic() - began
        lines = nginx.lines()
    _report(load, lines, ports, took)

    assert load.failures == []
    assert {line.status for line in lines} == {200}
    assert len(lines) == load.answered
    assert any(len(line.servers) > 1 for line in lines), "the kill met no request"


def _until_both_answer(nginx: Nginx, ports: list[int]) -> None:
    """From now on, each of them some request."""
    before = len(nginx.lines())
    until = time.monotonic() + 60
    while len({line.servers[-1] for line in nginx.lines()[before:]}) < len(ports):
        assert time.monotonic() < until, "one server gets nothing"
        time.sleep(0.1)


def _report(load: Load, lines: list[Line], ports: list[int], took: float) -> None:
    answers = Counter(line.servers[-1] for line in lines)
    print(  # noqa: T201
        f"\n{took:.0f} s of load by {CLIENTS} clients, one server killed, the other restarted: "
        f"{load.answered} answered and right, {len(load.failures)} failed; "
        f"{', '.join(str(answers[f'127.0.0.1:{port}']) for port in ports)} by each server; "
        f"{sum(len(line.servers) > 1 for line in lines)} sent on to the other; "
        f"slowest {load.slowest:.2f} s"
    )


# Nothing is computed here: two servers on the fake engine, each with batch jobs of its own.


@dataclass(frozen=True)
class Pair:
    nginx: Nginx
    servers: list[Server]

    def url(self, path: str) -> str:
        return f"{self.nginx.url}{path}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("nginx")
    ports = [free_port(), free_port()]
    front = free_port()
    with ExitStack() as held:
        servers = [
            held.enter_context(
                serving("--engine", "fake", "--batch-dir", str(folder / str(port)), port=port)
            )
            for port in ports
        ]
        yield Pair(held.enter_context(running(written(folder, ports, front), front)), servers)


BODY = {"query": "q", "documents": ["d"]}


def test_nginx_finds_nothing_wrong_with_the_files(tmp_path: Path) -> None:
    said = judged(written(tmp_path, [1, 2], 3))

    assert "warn" not in said


def test_nginx_serves_the_same_over_https(tmp_path: Path, pair: Pair) -> None:
    _certificate(tmp_path)
    ports = [int(server.url.rsplit(":", 1)[1]) for server in pair.servers]
    front, tls = free_port(), free_port()
    trusting = ssl.create_default_context(cafile=str(tmp_path / "fullchain.pem"))
    main = written(tmp_path, ports, front, tls=tls)
    judged(main)
    with running(main, front):
        reply = httpx.post(f"https://127.0.0.1:{tls}/v1/rerank", json=BODY, verify=trusting)
        plain = httpx.post(f"http://127.0.0.1:{front}/v1/rerank", json=BODY)

    assert reply.status_code == 200
    assert "max-age" in reply.headers["strict-transport-security"]
    assert plain.status_code == 308
    assert plain.headers["location"] == "https://127.0.0.1/v1/rerank"


def _certificate(folder: Path) -> None:
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"),
            *("-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")),
        ],
        check=True,
        capture_output=True,
    )


def test_limits_and_timeouts_are_those_of_the_server() -> None:
    defaults = Settings()
    said = (FILES / "locations.conf").read_text()
    upstream = (FILES / "upstream.conf").read_text()

    def values(directive: str, text: str = said) -> list[int]:
        found = re.findall(rf"^\s*{directive} (\d+)([smk]?);", text, re.MULTILINE)
        return [int(n) * {"m": 2**20, "k": 2**10}.get(unit, 1) for n, unit in found]

    body, upload = values("client_max_body_size")
    assert body == defaults.max_body_bytes
    assert upload == defaults.batch_file_bytes + 2**20
    for directive in ("client_header_timeout", "client_body_timeout", "proxy_send_timeout"):
        assert values(directive) == [defaults.read_timeout_seconds]
    [answers] = values("proxy_read_timeout")
    assert answers > defaults.engine_stuck_seconds + defaults.engine_wait_seconds
    [again] = values("proxy_next_upstream_timeout")
    assert again < answers, "what took too long would be computed twice"
    # The number that uvicorn is told in server/run.py.
    idle = values("keepalive_timeout", upstream)
    assert idle
    assert max(idle) < 75


def test_a_body_of_the_largest_size_passes_and_one_above_is_a_413_that_says_so(
    pair: Pair,
) -> None:
    def body(size: int) -> bytes:
        head, tail = b'{"query": "q", "documents": ["', b'"]}'
        return head + b"d" * (size - len(head) - len(tail)) + tail

    limit = Settings().max_body_bytes
    largest = httpx.post(pair.url("/v1/rerank"), content=body(limit), timeout=60)
    beyond = httpx.post(pair.url("/v1/rerank"), content=body(limit + 1), timeout=60)

    assert largest.status_code == 200
    assert beyond.status_code == 413
    assert beyond.json()["error"]["code"] == "request_too_large"
    assert "larger than the proxy takes" in beyond.json()["message"]
    assert beyond.json()["request_id"] == beyond.headers["x-request-id"]


def test_the_callers_id_is_the_servers_and_a_bad_one_is_replaced(pair: Pair) -> None:
    named = httpx.post(pair.url("/v1/rerank"), json=BODY, headers={"x-request-id": "a-1"})
    bad = httpx.post(pair.url("/v1/rerank"), json=BODY, headers={"x-request-id": 'a" b'})
    unnamed = httpx.post(pair.url("/v1/rerank"), json=BODY)

    ids = [reply.headers["x-request-id"] for reply in (named, bad, unnamed)]
    assert ids[0] == "a-1"
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids[1:])
    assert [line.request_id for line in pair.nginx.lines()[-3:]] == ids


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/voyage/metrics", "//metrics"])
def test_metrics_are_the_servers_and_probes_are_anybodys(pair: Pair, path: str) -> None:
    metrics = httpx.get(pair.url(path))

    assert metrics.status_code == 404
    assert "scrape the servers" in metrics.json()["error"]["message"]
    assert httpx.get(pair.url("/readyz")).json() == {"status": "ready"}


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_the_files_of_a_key_are_found_again_whoever_has_them(pair: Pair, header: str) -> None:
    before = len(pair.nginx.lines())
    with httpx.Client(base_url=pair.nginx.url, timeout=30) as http:
        for number in range(20):
            key = {header: f"Bearer {header}-{number}"}
            line = {"custom_id": "1", "method": "POST", "url": "/v1/rerank", "body": BODY}
            made = http.post(
                "/v1/files",
                headers=key,
                data={"purpose": "batch"},
                files={"file": ("lines.jsonl", json.dumps(line).encode())},
            )
            assert made.status_code == 200, made.text
            for path in ("/v1/files", "/voyage/v1/files", "/v1/v1/files", "//v1/files"):
                found = http.get(f"{pair.nginx.url}{path}/{made.json()['id']}", headers=key)
                assert found.status_code == 200, found.text

    used = {line.servers[-1] for line in pair.nginx.lines()[before:]}
    assert len(used) == 2, "all keys at one server"


def test_an_upload_above_the_limit_of_requests_passes(pair: Pair) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/rerank", "body": BODY}
    blanks = b" " * (Settings().max_body_bytes + 1)

    reply = httpx.post(
        pair.url("/v1/files"),
        data={"purpose": "batch"},
        files={"file": ("lines.jsonl", json.dumps(line).encode() + blanks)},
        timeout=60,
    )

    assert reply.status_code == 200


def test_lines_are_passed_on_as_they_come(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    front = free_port()
    documents = [f"{text} {n}" * 20 for n in range(15) for text in FACTS]
    body = {"query": "What is the capital of China?", "documents": documents}
    ask = {"accept": "application/x-ndjson"}
    with (
        serving(*MODEL, port=ports[0]) as server,
        running(written(tmp_path, ports, front), front) as nginx,
        httpx.stream(
            "POST", f"{nginx.url}/v1/rerank", json=body, headers=ask, timeout=120
        ) as reply,
    ):
        lines = reply.iter_lines()
        first = json.loads(next(lines))
        at_work = httpx.get(f"{server.url}/metrics").text
        rest = [json.loads(line) for line in lines]

    assert "index" in first
    assert "\nrankd_waiting_requests 1.0" in at_work, "the first line came with the last"
    assert len(rest[-1]["results"]) == len(documents)


def test_when_no_server_is_there_nginx_says_so_in_json(tmp_path: Path) -> None:
    front = free_port()
    with running(written(tmp_path, [free_port(), free_port()], front), front):
        reply = httpx.post(f"http://127.0.0.1:{front}/v1/rerank", json=BODY)

    assert reply.status_code == 502
    assert reply.headers["retry-after"] == "2"
    assert reply.json()["error"]["code"] == "no_server"
    assert reply.json()["message"] == "no server could be reached; try again"
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_the_page_is_had_from_the_other_server_and_batch_jobs_are_not(tmp_path: Path) -> None:
    front = free_port()
    pages, jobs = set(), set()
    with serving("--engine", "fake", "--batch-dir", str(tmp_path / "jobs")) as server:
        live = int(server.url.rpartition(":")[2])
        with running(written(tmp_path, [live, free_port()], front), front) as nginx:
            for number in range(30):  # Visitors and keys, half of whom belong to the other server.
                visitor = httpx.HTTPTransport(local_address=f"127.0.0.{number + 2}")
                with httpx.Client(transport=visitor, base_url=nginx.url) as http:
                    pages.add(http.get("/ui").status_code)
                    key = {"x-api-key": f"key-{number}"}
                    jobs.add(http.get("/v1/batches", headers=key).status_code)

    assert pages == {307}
    assert jobs == {200, 502}
