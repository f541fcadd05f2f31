"""The costs of scoring over Ray: .venv-ray/bin/python bench/ray_plumbing.py (make setup-ray).

Replicas sleep instead of computing, so that two cores can carry four of them.

    throughput   tokens per second of 1, 2 and 4 replicas, with enough requests in flight
    one request  1,000 documents over 1 and 4 replicas
    CPU          of a request of 12 documents: a server over one Ray replica of the fake engine, and
                 a server with the fake engine itself, in turns
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rankd.config.settings import Settings
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker
from rankd.types import Prompt
from server import cpu_seconds
from support.ray_cluster import RayCluster, deployed, shared_cluster, until
from support.ray_load import body, front, value_of
from support.servers import Server, serving

# Tokens per second of a sleeping replica, so slow that the sleep is nearly all of the time.
RATE = 10_000


@contextmanager
def replicas(count: int, rate: float) -> Iterator[None]:
    from support.ray_replicas import sleeping

    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(sleeping(Path(folder), rate, num_replicas=count)),
    ):
        yield


async def tokens_per_second(ranker: Ranker, seconds: float) -> float:
    """With 64 requests of 20 documents in flight."""
    prompts = [Prompt((1, 2, 3), tuple(range(4, 104))) for _ in range(20)]
    tokens = sum(map(len, prompts))
    end, done = time.monotonic() + seconds, 0

    async def keep_asking() -> None:
        nonlocal done
        while time.monotonic() < end:
            await ranker.scheduler.score(prompts)
            done += tokens

    began = time.monotonic()
    await asyncio.gather(*(keep_asking() for _ in range(64)))
    return done / (time.monotonic() - began)


async def all_replicas(ranker: Ranker, count: int) -> None:
    await until(lambda: ranker.engine.slots.replicas == count, f"{count} replicas")


async def one_request(ranker: Ranker) -> float:
    """Seconds of 1,000 documents of 200 tokens."""
    prompts = [Prompt((1, 2, 3), tuple(range(4, 204))) for _ in range(1_000)]
    began = time.monotonic()
    await ranker.scheduler.score(prompts)
    return time.monotonic() - began


async def plumbing(seconds: float) -> None:
    rates, requests = {}, {}
    for count in (1, 2, 4):
        with replicas(count, RATE):
            async with open_ranker(Settings(engine="ray", cache_mb=0)) as (_, ranker):
                await all_replicas(ranker, count)
                rates[count] = await tokens_per_second(ranker, seconds)
                requests[count] = await one_request(ranker)
        line = f"{count} replicas: {rates[count]:8,.0f} tokens/s, {rates[count] / rates[1]:.2f}"
        print(f"{line} times; 1,000 documents {requests[count]:.1f} s,", end=" ")
        print(f"{requests[1] / requests[count]:.2f} times faster")


def cpu_of_requests(server: Server, requests: int) -> float:
    """Milliseconds of CPU per request, 8 at a time."""

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            for number in range(requests // 8):
                response = await client.post(f"{server.url}/v1/rerank", json=body(number))
                response.raise_for_status()

    async def all_of_them() -> None:
        await asyncio.gather(*(ask() for _ in range(8)))

    before = cpu_seconds(server.process.pid)
    asyncio.run(all_of_them())
    return 1000 * (cpu_seconds(server.process.pid) - before) / requests


def cpu(cluster: RayCluster, requests: int, rounds: int) -> None:
    from rankd.server.replica import build

    app = build({"engine": "fake"}, ray_actor_options={"num_cpus": 1})
    plain = serving("builtin", "--engine", "fake", "--cache-mb", "0")
    with deployed(app), front(cluster.address) as over_ray, plain as alone:
        assert value_of(over_ray.url, "rankd_ray_replicas") == 1
        cpu_of_requests(over_ray, requests)
        cpu_of_requests(alone, requests)
        ratios = []
        for _ in range(rounds):
            front_ms, alone_ms = (cpu_of_requests(one, requests) for one in (over_ray, alone))
            ratios.append(front_ms / alone_ms)
            print(f"CPU a request: over Ray {front_ms:.2f} ms, alone {alone_ms:.2f} ms")
    print(f"ratio, median of {rounds} rounds: {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of each throughput")
    parser.add_argument("--requests", type=int, default=400, help="of each round of CPU")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cluster = shared_cluster(nodes=4)
    asyncio.run(plumbing(options.seconds))
    cpu(cluster, options.requests, options.rounds)


if __name__ == "__main__":
    main()
