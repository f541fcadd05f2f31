"""`rankd serve --deterministic`: bit-identical results from server to server."""

from __future__ import annotations

import random
import signal
import threading
from typing import Any

import httpx
import pytest

from support.headers import parsed
from support.servers import Server, get, run, serving

WORDS = ["lion", "gravity", "capital", "重力", "rain", "bread", "planet", "river", "of", "the"]


def body(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 60))) for _ in range(8)]
    return {"query": " ".join(chance.choices(WORDS, k=5)), "documents": texts, "raw_scores": True}


def answers(server: Server, order: list[int], **more: Any) -> dict[int, list[Any]]:
    """The results by seed; checks that each response names the server's version."""
    results = {}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for seed in order:
            reply = client.post("/v1/rerank", json=body(seed) | more)
            assert parsed(reply.headers["rankd"]) == client.get("/version").json()
            results[seed] = reply.json()["results"]
    return results


def loaded(server: Server, order: list[int]) -> dict[int, list[Any]]:
    """As `answers`, while other clients send other requests all the time."""
    over = threading.Event()

    def ask(seed: int) -> None:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            while not over.is_set():
                seed += 1
                client.post("/v1/rerank", json=body(seed)).raise_for_status()

    others = [threading.Thread(target=ask, args=(1000 * (1 + client),)) for client in range(4)]
    for other in others:
        other.start()
    try:
        return answers(server, order, cache=False)
    finally:
        over.set()
        for other in others:
            other.join()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_servers_return_bit_identical_results(dtype: str) -> None:
    order = list(range(6))
    options = ["--deterministic", "--engine", "native", "--device", "cpu", "--threads", "1"]
    options += ["--dtype", dtype]
    with serving(*options) as server:
        version = get(f"{server.url}/version").json()
        calm = answers(server, order)
        assert loaded(server, order[::-1]) == calm
        assert answers(server, order) == calm  # From the cache.
        server.stop(signal.SIGTERM)
    with serving(*options, "--cache-mb", "0") as server:
        assert get(f"{server.url}/version").json() == version
        assert loaded(server, order) == calm

    assert version["deterministic"] is True
    assert version["dtype"] == dtype
    assert f", {dtype} products" in version["arithmetic"]
    assert version["arithmetic"].endswith(", 1 thread")


def test_an_engine_without_deterministic_scores_refuses_to_start() -> None:
    ended = run("serve", "--engine", "vllm", "--deterministic", "--port", "0")

    assert ended.returncode == 2
    assert "deterministic: the last bits of vLLM's scores depend on" in ended.stderr
    assert "Traceback" not in ended.stderr
