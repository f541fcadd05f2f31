"""`rankd serve --engine vllm` as a process: answers, metrics, wrong settings, a killed engine."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.servers import Server, family, run, serving
from support.yardstick import scaled

pytestmark = pytest.mark.vllm

DASHBOARD = Path(__file__).parent.parent.parent / "deploy/grafana/dashboards/rankd.json"

REQUEST = {
    "query": "What is the capital of China?",
    "documents": [
        "Gravity is a force that attracts two bodies towards each other.",
        "The capital of China is Beijing.",
        "Beijing is a city in the north of China.",
    ],
    "raw_scores": True,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The built-in model on the real vLLM; it passed the self-check."""
    arguments = ["--engine", "vllm", "--max-tokens", "2048", "--engine-wait-seconds", "300"]
    with serving("builtin", *arguments) as server:
        yield server


def _results(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    reply = httpx.post(f"{url}/v1/rerank", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


def test_both_engines_give_the_same_answer(server: Server) -> None:
    ours = _results(server.url, REQUEST)
    with serving("builtin", "--engine", "native") as native:
        expected = _results(native.url, REQUEST)

    assert [r["index"] for r in ours] == [r["index"] for r in expected]
    for one, other in zip(ours, expected, strict=True):
        assert one["relevance_score"] == pytest.approx(other["relevance_score"], abs=1e-3)


def test_version_names_the_engine_and_device(server: Server) -> None:
    version = httpx.get(f"{server.url}/version").json()

    assert version["engine"] == "vllm"
    assert (version["device"], version["dtype"]) == ("cpu", "float32")


def test_metrics_include_every_vllm_metric_of_the_dashboard(server: Server) -> None:
    _results(server.url, REQUEST)

    page = httpx.get(f"{server.url}/metrics", timeout=30).text

    in_dashboard = set(re.findall(r"vllm:\w+", DASHBOARD.read_text(encoding="utf-8")))
    assert len(in_dashboard) > 8
    assert in_dashboard <= set(re.findall(r"^(vllm:\w+){", page, re.M))
    assert re.search(r"^vllm:prompt_tokens_total{.*} [1-9]", page, re.M)
    assert re.search(r"^rankd_documents_total [1-9]", page, re.M)


def test_a_client_that_disconnects_does_not_block_others(server: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/rerank", json=_long(400), timeout=1)
    began = time.monotonic()

    results = _results(server.url, REQUEST)

    assert results[0]["index"] == 1
    assert time.monotonic() - began < scaled(10)  # The 400 documents would take far longer.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vllm-args", '{"max_num_seq": 4}'], "vLLM has no argument max_num_seq; did you mean"),
        (["--vllm-args", '{"runner": "generate"}'], "vllm_args: runner is set by rankd"),
        (["--device", "cuda"], "device = 'cuda': the installed vLLM 0.32.0 is for cpu"),
        (["--vllm-args", '{"tensor_parallel_size": 3}'], "tensor_parallel_size = 3: must be 1"),
    ],
)
def test_a_wrong_setting_is_refused_with_one_sentence(arguments: list[str], message: str) -> None:
    ended = run("serve", "builtin", "--engine", "vllm", "--port", "0", *arguments)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_killed_engine_core_is_restarted_and_requests_in_flight_are_answered(
    server: Server,
) -> None:
    expected = _results(server.url, _long(30))
    core = _core(server)
    in_flight: list[list[dict[str, Any]]] = []
    request = threading.Thread(
        target=lambda: in_flight.append(_results(server.url, _long(30))),
    )
    request.start()
    time.sleep(1)
    workers = family(core)[1:]

    os.kill(core, signal.SIGKILL)
    time.sleep(1)
    ready = [httpx.get(f"{server.url}/readyz", timeout=5).status_code]
    while ready[-1] == 503:
        time.sleep(0.5)
        # Health probes are answered in time while vLLM starts.
        assert httpx.get(f"{server.url}/livez", timeout=5).status_code == 200
        ready.append(httpx.get(f"{server.url}/readyz", timeout=5).status_code)
    request.join()

    assert ready[0] == 503
    assert ready[-1] == 200
    [answer] = in_flight
    for one, other in zip(answer, expected, strict=True):
        assert one["relevance_score"] == pytest.approx(other["relevance_score"], abs=1e-3)
    assert _core(server) != core
    assert _are_gone(workers)


def test_without_restarts_a_killed_engine_core_gives_503_and_ends_the_server() -> None:
    with serving("builtin", "--engine", "vllm", "--engine-restarts", "0") as server:
        core = _core(server)
        workers = family(core)[1:]
        in_flight: list[httpx.Response] = []
        request = threading.Thread(
            target=lambda: in_flight.append(
                httpx.post(f"{server.url}/v1/rerank", json=_long(400), timeout=60)
            )
        )
        request.start()
        time.sleep(1)

        os.kill(core, signal.SIGKILL)
        ready = _no_longer_ready(server.url)
        late = httpx.post(f"{server.url}/v1/rerank", json=REQUEST)
        request.join()
        status, errors = server.ended()

    assert ready.status_code == 503
    for reply in (late, *in_flight):
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "engine_down"
    assert len(in_flight) == 1
    assert status == 6
    assert "stopping: the vLLM engine has died" in errors
    assert _are_gone(workers)


def _no_longer_ready(url: str) -> httpx.Response:
    """The first reply of /readyz with an error status, within 30 seconds."""
    until = time.monotonic() + 30
    while (ready := httpx.get(f"{url}/readyz")).is_success and time.monotonic() < until:
        time.sleep(0.05)
    return ready


def _are_gone(pids: list[int]) -> bool:
    """Whether all processes end within 30 seconds."""
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _core(server: Server) -> int:
    [core] = [pid for pid in family(server.process.pid) if _name(pid).startswith("VLLM::Engine")]
    return core


def _long(documents: int) -> dict[str, Any]:
    texts = [f"document {number} " + "and so on " * 300 for number in range(documents)]
    return {"query": "q", "documents": texts}


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
