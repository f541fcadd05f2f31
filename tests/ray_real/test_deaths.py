"""Replicas and nodes die or hang under load: nothing is lost, and nothing is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from rankd.config.settings import Settings
from rankd.errors import PoisonRequest
from rankd.server.app import open_ranker
from rankd.types import Prompt
from support.ray_cluster import Node, RayCluster, deployed, replica_pids, until
from support.ray_load import Load, front, value_of
from support.ray_replicas import POISON, sleeping
from support.servers import Server, family

pytestmark = [pytest.mark.ray, pytest.mark.anyio, pytest.mark.timeout(1800)]

DEATHS, HEDGES = "rankd_ray_replica_deaths_total", "rankd_ray_hedges_total"


@pytest.fixture
def server(sleepers: RayCluster) -> Iterator[Server]:
    with front(sleepers.address) as server:
        yield server


async def kill_replica(cluster: RayCluster, server: Server) -> None:
    deaths = value_of(server.url, DEATHS)
    os.kill(replica_pids()[0], signal.SIGKILL)
    await until(lambda: value_of(server.url, DEATHS) > deaths, "the death")


def with_replica(cluster: RayCluster) -> Node:
    """A node that a replica runs on."""
    pids = set(replica_pids())
    return next(node for node in cluster.nodes if pids.intersection(family(node.process.pid)))


async def kill_node(cluster: RayCluster, server: Server) -> None:
    deaths = value_of(server.url, DEATHS)
    with_replica(cluster).kill()
    await until(lambda: value_of(server.url, DEATHS) > deaths, "the death")


async def stop_node(cluster: RayCluster, server: Server) -> None:
    hedges, node = value_of(server.url, HEDGES), with_replica(cluster)
    node.stop()
    try:
        await until(lambda: value_of(server.url, HEDGES) > hedges, "the hedge")
    finally:
        node.kill()


@pytest.mark.parametrize("harm", [kill_replica, kill_node, stop_node])
async def test_nothing_is_lost_and_nothing_is_wrong(
    harm: Callable[[RayCluster, Server], Coroutine[Any, Any, None]],
    sleepers: RayCluster,
    server: Server,
    ray_round: int,
) -> None:
    load = Load(f"{server.url}/v1/rerank")
    await all_replicas(server)
    await load.calm_run()

    await load.run(during(load, harm(sleepers, server)))

    print(f"{load.answered} answered, slowest {load.slowest:.1f} s")  # noqa: T201
    assert load.lost == []
    assert load.wrong == []


async def during(load: Load, work: Coroutine[Any, Any, None]) -> None:
    """Some answers, then the work, then some more answers."""
    await until(lambda: load.answered >= 20, "the load")
    await work
    before = load.answered
    await until(lambda: load.answered >= before + 20, "more answers")


async def all_replicas(server: Server) -> None:
    await until(lambda: value_of(server.url, "rankd_ray_replicas") == 3, "three replicas")


async def test_without_any_replica_requests_get_503_in_their_format_until_one_is_back(
    sleepers: RayCluster,
) -> None:
    with front(sleepers.address, "--engine-wait-seconds", "0") as server:
        await all_replicas(server)
        document = {"query": "q", "documents": ["d"]}
        statuses = set()

        def gone() -> bool:
            for pid in replica_pids():
                os.kill(pid, signal.SIGKILL)
            response = httpx.post(f"{server.url}/v1/rerank", json=document, timeout=60)
            statuses.add(response.status_code)
            return response.status_code == 503 and response.json()["message"] != ""

        await until(gone, "a 503")

        def is_back() -> bool:
            response = httpx.post(f"{server.url}/v1/rerank", json=document, timeout=60)
            statuses.add(response.status_code)
            return response.status_code == 200

        await until(is_back, "an answer")

        assert statuses == {200, 503}
        assert (await asyncio.to_thread(httpx.get, f"{server.url}/readyz")).status_code == 200


async def test_a_poisonous_request_kills_two_replicas_at_most_and_the_others_are_answered(
    sleepers: RayCluster,
) -> None:
    pids = set(replica_pids())
    async with open_ranker(Settings(engine="ray", cache_mb=0)) as (_, ranker):
        scheduler = ranker.scheduler
        await until(lambda: scheduler.engine.slots.replicas == 3, "three replicas")
        good = [Prompt((1, 2, 3), (4, 5 + index)) for index in range(30)]
        calls = [asyncio.create_task(scheduler.score([one], key="other")) for one in good]
        with pytest.raises(PoisonRequest):
            await scheduler.score([Prompt((1, 2), (3, POISON))])
        scored = await asyncio.gather(*calls)

    assert len(scored) == 30
    assert 1 <= len(pids - set(replica_pids())) <= 2


async def test_a_client_that_leaves_ends_the_work_at_the_replica(
    cluster: RayCluster, tmp_path: Path
) -> None:
    # Ten seconds for each document, so that no batch ends before it is cancelled.
    with deployed(sleeping(tmp_path, rate=100, num_replicas=1)):
        async with open_ranker(Settings(engine="ray", cache_mb=0)) as (_, ranker):
            document = tuple(range(100, 100 + 1000))
            long = [Prompt((1, 2, 3), (*document, index)) for index in range(3_000)]
            call = asyncio.create_task(ranker.scheduler.score(long))
            await until(lambda: [*tmp_path.glob("began-*")], "the work")
            call.cancel()

            await until(lambda: [*tmp_path.glob("abandoned-*")], "the replica to hear of it")
            await until(lambda: not value("rankd_ray_outstanding_tokens"), "the end of it")


def value(metric: str) -> float:
    return REGISTRY.get_sample_value(metric) or 0.0
