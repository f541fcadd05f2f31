"""The server as a process: start, errors, engine crashes and exit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer

from rankd.errors import PortTaken
from rankd.prompts.qwen3 import SUFFIX
from rankd.server.run import _bind, _listen
from support.deadly import make_deadly
from support.servers import Server, command, family, get, run, serving

BODY = {"query": "What is the capital of China?", "documents": ["Beijing is the capital."]}


def test_sigterm_exits_with_0() -> None:
    with serving("--engine", "fake") as server:
        assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200

        status, errors = server.stop(signal.SIGTERM)

    assert status == 0
    assert "Traceback" not in errors


def test_ctrl_c_exits_with_0() -> None:
    with serving("--engine", "fake") as server:
        status, errors = server.stop(signal.SIGINT)

    assert status == 0
    assert "Traceback" not in errors


@contextmanager
def _on_hangup(action: signal.Handlers) -> Iterator[None]:
    """What SIGHUP does to servers that are started meanwhile: they inherit it."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_closed_terminal_drains_the_server() -> None:
    options = ("--self-check", "off", "--batch-tokens", "512")
    with _on_hangup(signal.SIG_DFL), serving(*options) as server:
        replies: dict[int, httpx.Response] = {}
        threads = _asking(server, [_varied(number) for number in range(4)], replies)
        while "rankd_waiting_requests 4.0" not in get(f"{server.url}/metrics").text:
            assert not replies, "the requests were too short for this test"
        for pid in family(server.process.pid):  # The kernel signals the whole process group.
            os.kill(pid, signal.SIGHUP)
        for thread in threads:
            thread.join()
        status, errors = server.ended()

    assert [replies[number].status_code for number in range(4)] == [200] * 4
    assert "stopping; requests in flight" in errors
    assert status == 0


def test_a_server_under_nohup_outlives_its_terminal() -> None:
    with _on_hangup(signal.SIG_IGN), serving("--engine", "fake") as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        alive = get(f"{server.url}/livez").status_code
        status, _ = server.stop(signal.SIGTERM)

    assert alive == 200
    assert status == 0


def test_a_connection_can_be_reused() -> None:
    with serving("--engine", "fake") as server, httpx.Client() as client:
        replies = [client.post(f"{server.url}/v1/rerank", json=BODY) for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200, 200, 200]


def test_a_request_is_one_line_of_the_access_log() -> None:
    with serving("--engine", "fake") as server:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, headers={"X-Request-Id": "mine-7"})
        _, errors = server.stop(signal.SIGTERM)

    [line] = [line for line in errors.splitlines() if "rankd.access" in line]
    assert "POST /v1/rerank 200" in line
    assert json.loads(line)["request_id"] == "mine-7"


@pytest.mark.slow
@pytest.mark.parametrize("behind", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_disconnect_cancels_the_request_and_no_other(builtin: Path, behind: bytes) -> None:
    documents = [f"document {number} " + "and so on " * 200 for number in range(400)]
    body = json.dumps({"query": "q", "documents": documents}).encode()
    with serving("--self-check", "off", "--batch-tokens", "512") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body + behind)
            )
            time.sleep(0.5)
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=30)
        metrics = get(f"{server.url}/metrics").text
        _, errors = server.stop(signal.SIGTERM)

    assert reply.status_code == 200
    assert "POST /v1/rerank 499" in errors
    assert "rankd_documents_total 1.0" in metrics  # Without the 400 of the cancelled request.
    assert "Traceback" not in errors


def test_the_server_never_imports_torch() -> None:
    with serving("--self-check", "off") as server:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()

    assert "libtorch" not in maps


@pytest.mark.slow
def test_without_restarts_a_killed_engine_is_a_503_and_status_6() -> None:
    with serving("--self-check", "off", "--engine-restarts", "0") as server:
        [_, worker] = family(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        _wait_until_dead(worker)

        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY)

        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "engine_down"
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/livez").status_code == 200
        status, errors = server.ended()

    assert status == 6  # The status for a supervisor to restart it.
    assert "stopping: the native engine" in errors


# For busy machines.
_PATIENT = ("--engine-wait-seconds", "200")


def test_requests_in_flight_when_the_engine_is_killed_get_correct_scores() -> None:
    bodies = [_varied(number) for number in range(6)]
    with serving("--self-check", "off", "--cache-mb", "0", *_PATIENT) as server:
        calm = [httpx.post(f"{server.url}/v1/rerank", json=body, timeout=300) for body in bodies]
        for _ in range(2):
            replies: dict[int, httpx.Response] = {}
            threads = _asking(server, bodies, replies)
            time.sleep(0.3)
            assert len(replies) < len(bodies)
            [_, worker] = family(server.process.pid)
            os.kill(worker, signal.SIGKILL)
            _wait_until_dead(worker)
            _wait_until_ready(server, 503)
            assert get(f"{server.url}/livez").status_code == 200
            for thread in threads:
                thread.join()

            assert get(f"{server.url}/readyz").status_code == 200
            for number, expected in enumerate(calm):
                assert _scores(replies[number]) == pytest.approx(_scores(expected), abs=1e-4)
        metrics = get(f"{server.url}/metrics").text
        status, errors = server.stop(signal.SIGTERM)

    assert "rankd_engine_restarts_total 2.0" in metrics
    assert "rankd_engine_up 1.0" in metrics
    assert status == 0
    assert "Traceback" not in errors


def _varied(number: int) -> dict[str, object]:
    texts = [f"{number} and {place} " + "so it goes on " * (place % 40) for place in range(40)]
    return {"query": f"what is {number}?", "documents": texts, "raw_scores": True}


def _asking(
    server: Server, bodies: list[dict[str, object]], replies: dict[int, httpx.Response]
) -> list[threading.Thread]:
    """Send all bodies at once, each with its own request id; `replies` fills up."""

    def ask(number: int) -> None:
        replies[number] = httpx.post(
            f"{server.url}/v1/rerank",
            json=bodies[number],
            headers={"X-Request-Id": f"request-{number}"},
            timeout=300,
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    return threads


def _scores(reply: httpx.Response) -> list[float]:
    assert reply.status_code == 200, reply.text
    results = sorted(reply.json()["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in results]


@pytest.mark.slow
def test_during_a_restart_a_request_that_may_not_wait_gets_retry_after() -> None:
    with serving("--self-check", "off", "--engine-wait-seconds", "0") as server:
        [_, worker] = family(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        _wait_until_dead(worker)
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=60)
        metrics = get(f"{server.url}/metrics").text
        _wait_until_ready(server)
        later = httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=60)

    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "engine_down"
    assert int(reply.headers["retry-after"]) >= 1
    assert "rankd_engine_up 0.0" in metrics
    assert later.status_code == 200


def _wait_until_ready(server: Server, status: int = 200) -> None:
    """Wait until /readyz returns this status; a killed process takes a moment to exit."""
    for _ in range(2000):
        if get(f"{server.url}/readyz").status_code == status:
            return
        time.sleep(0.05)
    pytest.fail(f"/readyz was never {status}")


@pytest.mark.slow
def test_a_crash_loop_stops_the_server_with_an_error_line() -> None:
    with serving("--self-check", "off", "--engine-restarts", "2") as server:
        killed: set[int] = set()
        while server.process.poll() is None:
            try:
                worker = family(server.process.pid)[1:]
            except (FileNotFoundError, ProcessLookupError):
                continue  # The process ended meanwhile.
            for pid in worker:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
        status, errors = server.ended()

    assert status == 6
    assert len(killed) == 3
    assert "stopping: the engine died 3 times in 5 minutes; last reason: " in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_request_that_crashes_the_engine_is_refused_and_the_others_are_answered(
    builtin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [_varied(number) for number in range(5)]
    poison: dict[str, object] = {"query": "what is 3?", "documents": ["a xylophone"]}
    make_deadly(_only_in(" xylophone", json.dumps(bodies), builtin), tmp_path, monkeypatch)
    with serving("--self-check", "off", *_PATIENT) as server:
        calm = [httpx.post(f"{server.url}/v1/rerank", json=body, timeout=300) for body in bodies]
        replies: dict[int, httpx.Response] = {}
        for thread in _asking(server, [*bodies, poison], replies):
            thread.join()
        again = httpx.post(f"{server.url}/v1/rerank", json=poison, timeout=300)
        _wait_until_ready(server)
        metrics = get(f"{server.url}/metrics").text
        _, errors = server.stop(signal.SIGTERM)

    refused = replies.pop(5)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "poison_request"
    assert "request request-5 ended the engine twice" in refused.json()["error"]["message"]
    assert "request request-5 ended the engine twice and is refused" in errors
    assert again.status_code == 400
    assert "rankd_engine_restarts_total 2.0" in metrics
    for number, expected in enumerate(calm):
        assert _scores(replies[number]) == pytest.approx(_scores(expected), abs=1e-4)


def _only_in(word: str, others: str, model: Path) -> int:
    """A token id of a word that the other texts do not contain."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = set(tokenizer.encode(word).ids) - set(tokenizer.encode(others).ids)
    return min(ids - set(tokenizer.encode(SUFFIX).ids))


@pytest.mark.slow
@pytest.mark.parametrize("restarting", [False, True], ids=["idle", "during a restart"])
def test_a_killed_server_leaves_no_worker(restarting: bool) -> None:
    with serving("--self-check", "off") as server:
        [_, worker] = family(server.process.pid)
        if restarting:
            os.kill(worker, signal.SIGKILL)
            while (found := family(server.process.pid)[1:]) in ([], [worker]):
                time.sleep(0.01)
            worker = found[-1]
        server.stop(signal.SIGKILL)

        assert _wait_until_dead(worker)


def _wait_until_dead(pid: int) -> bool:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_concurrent_clients_get_their_own_results() -> None:
    with serving("--self-check", "off") as server:
        alone = {
            word: httpx.post(f"{server.url}/v1/rerank", json=_ask(word)).json()["results"]
            for word in ("fox", "whale", "gravity")
        }
        together: dict[str, list[object]] = {word: [] for word in alone}

        def ask(word: str) -> None:
            reply = httpx.post(f"{server.url}/v1/rerank", json=_ask(word), timeout=60)
            together[word].append(reply.json()["results"])

        threads = [threading.Thread(target=ask, args=(word,)) for word in alone for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for word, answers in together.items():
        assert len(answers) == 8
        for results in answers:
            assert [r["index"] for r in results] == [r["index"] for r in alone[word]]  # type: ignore[attr-defined]


def _ask(word: str) -> dict[str, object]:
    return {"query": f"what is a {word}?", "documents": ["A fox hunts.", "A whale sings.", word]}


def test_a_request_in_flight_at_sigterm_is_answered() -> None:
    with serving("--self-check", "off") as server:
        replies, status, errors = _stopped_during(server, _long(100))

    assert [reply.status_code for reply in replies] == [200]
    assert status == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_request_that_exceeds_the_drain_time_is_a_503() -> None:
    with serving("--self-check", "off", "--drain-seconds", "1") as server:
        replies, status, errors = _stopped_during(server, _long(1000))

    assert [reply.status_code for reply in replies] == [503]
    assert replies[0].json()["error"]["code"] == "shutting_down"
    assert status == 0
    assert "Traceback" not in errors


def _stopped_during(
    server: Server, body: dict[str, object]
) -> tuple[list[httpx.Response], int, str]:
    """SIGTERM while a request runs: its reply, the exit status, standard error."""
    replies: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: replies.append(httpx.post(f"{server.url}/v1/rerank", json=body, timeout=60))
    )
    thread.start()
    time.sleep(1)
    status, errors = server.stop(signal.SIGTERM)
    thread.join()
    return replies, status, errors


def _long(documents: int) -> dict[str, object]:
    texts = [f"document {number} " + "and so on " * 100 for number in range(documents)]
    return {"query": "q", "documents": texts}


def test_sigterm_while_the_model_loads_exits_with_0() -> None:
    process = subprocess.Popen(command("serve", "--port", "0"), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "loading" in process.stderr.readline()
    process.terminate()
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "Traceback" not in errors


def test_equal_documents_keep_the_order_of_the_request() -> None:
    body = {"query": "fox", "documents": ["a fox", "a whale", "a fox"] * 30, "raw_scores": True}
    with serving("--self-check", "off", "--batch-tokens", "200") as server:
        results = httpx.post(f"{server.url}/v1/rerank", json=body, timeout=60).json()["results"]

    order = [result["index"] for result in results]
    foxes = [index for index in order if index % 3 != 1]
    assert order[:60] == foxes
    assert foxes == sorted(foxes)
    assert len({result["relevance_score"] for result in results}) == 2


def test_the_second_server_to_listen_on_a_port_is_refused() -> None:
    with _bind("127.0.0.1", 0) as first, _bind("127.0.0.1", first.getsockname()[1]) as second:
        _listen(first)
        with pytest.raises(PortTaken, match="is in use: stop what listens"):
            _listen(second)


@pytest.mark.parametrize(("level", "way"), [(None, "--port"), ("1", 'ARGS="… --port 9000"')])
def test_a_port_in_use_is_one_error_line(
    level: str | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAKELEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("MAKELEVEL", level)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "--engine", "fake", "--port", str(port))

    assert ended.returncode == 4
    assert ended.stderr == (
        f"rankd: port {port} on 127.0.0.1 is in use: stop what listens there, such as another "
        f"rankd, or choose another port with {way}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "/no/such/folder"], "no model folder at '/no/such/folder'"),
        (["serve", "--prot", "1"], "unknown argument --prot; did you mean --port?"),
        (["serve", "--port", "http"], "port = 'http'"),
        (["serve", "--self-check", "perhaps"], "self_check = 'perhaps'"),
        (["serve", "--host", "no.such.host.invalid"], "cannot listen on --host"),
        (["serve", "--config", "/no/such.toml"], "cannot read --config /no/such.toml"),
    ],
)
def test_a_wrong_argument_is_one_error_line(arguments: list[str], message: str) -> None:
    ended = run(*arguments)

    assert ended.returncode not in (0, 1)
    assert message in ended.stderr
    assert ended.stderr.startswith("rankd: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_missing_device_is_an_error_without_a_traceback() -> None:
    ended = run("serve", "--device", "cuda")

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("rankd: device = 'cuda', but torch ")
    assert "Traceback" not in ended.stderr


def test_a_misspelled_variable_is_one_error_line() -> None:
    ended = run("serve", RANKD_MAX_DOCUMENT="3")

    assert ended.returncode == 2
    assert ended.stderr == (
        "rankd: unknown setting RANKD_MAX_DOCUMENT; did you mean RANKD_MAX_DOCUMENTS?\n"
    )


def test_a_folder_without_a_reranker_is_one_error_line(tmp_path: Path) -> None:
    empty, bare, other, many = (tmp_path / name for name in ("empty", "bare", "other", "many"))
    for folder in (empty, bare, other, many):
        folder.mkdir()
    (bare / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (other / "config.json").write_text('{"architectures": ["BertModel"]}')
    (many / "config.json").write_text(
        '{"architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}'
    )
    expected = {
        empty: "is not a model folder: it has no config.json",
        bare: "has no weights",
        other: "is a BertModel; rankd serves Qwen3-Reranker",
        many: "has 2 labels, and id2label",
    }
    for folder, message in expected.items():
        ended = run("serve", str(folder))
        assert ended.returncode == 3
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_random_weights_are_served_only_without_a_strict_self_check(
    random_checkpoint: Path,
) -> None:
    refused = run("serve", str(random_checkpoint), "--port", "0")

    assert refused.returncode == 5
    assert "the self-check failed on" in refused.stderr
    assert "Traceback" not in refused.stderr
    with serving(str(random_checkpoint), "--self-check", "warn") as server:
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY)
    assert reply.status_code == 200


def test_the_documents_of_the_model_card_are_193_tokens(random_checkpoint: Path) -> None:
    body = {
        "query": "What is the capital of China?",
        "documents": [
            "The capital of China is Beijing.",
            "Gravity is a force that attracts two bodies towards each other. It gives weight to "
            "physical objects and is responsible for the movement of planets around the sun.",
        ],
    }
    with serving(str(random_checkpoint), "--self-check", "off") as server:
        answer = httpx.post(f"{server.url}/v1/rerank", json=body).json()

    assert answer["usage"]["prompt_tokens"] == 193
