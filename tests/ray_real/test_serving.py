"""Fronts and replicas: start, refusal, scaling, updates, logs, and `rankd check`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.errors import BadSettings, SetupError
from rankd.server.app import open_ranker
from rankd.server.replica import build
from rankd.types import Prompt
from support.ray_cluster import RayCluster, deployed, replica_pids, until
from support.ray_load import Load, front, value_of
from support.ray_replicas import sleeping
from support.servers import Server, run

pytestmark = [pytest.mark.ray, pytest.mark.anyio, pytest.mark.timeout(1800)]

ACTOR = {"num_cpus": 1}


async def test_a_front_scores_as_one_machine_does_and_check_compares_the_replicas(
    cluster: RayCluster,
) -> None:
    settings = Settings(engine="native", device="cpu", dtype="float32", threads=1, cache_mb=0)
    pairs = {"query": "capital of China", "documents": ["Beijing is.", "Gravity.", "A capital."]}
    values = settings.model_dump(exclude_unset=True)
    async with open_ranker(settings) as (_, ranker):
        prompts = [Prompt((5, 6, 7), (8, 9, index)) for index in range(40)]
        expected = await ranker.scheduler.score(prompts)

    with deployed(build(values, num_replicas=2, ray_actor_options=ACTOR)):
        async with open_ranker(Settings(engine="ray", cache_mb=0)) as (_, ranker):
            scored = await ranker.scheduler.score(prompts)
        with front(cluster.address) as server:
            answer = await asyncio.to_thread(ask, server, pairs)
            await until(lambda: value_of(server.url, "rankd_ray_replicas") == 2, "two replicas")
            assert value_of(server.url, "rankd_ray_replica_tokens_total") > 0
        flags = ("builtin", "--engine", "ray", "--ray-address", cluster.address)
        text = await asyncio.to_thread(calling_run, "check", *flags)
        report = await asyncio.to_thread(calling_run, "check", *flags, "--json")

    assert scored == pytest.approx(expected, abs=1e-4)
    assert answer.status_code == 200
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("replica ")] == [
        *("ok", "ok")
    ]
    assert len(json.loads(report)["replicas"]) == 2


def ask(server: Server, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/rerank", json=body, timeout=120)


def calling_run(*arguments: str) -> str:
    ended = run(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def test_a_front_with_other_limits_or_another_model_does_not_start(
    sleepers: RayCluster, random_checkpoint: Path
) -> None:
    with pytest.raises(BadSettings, match="its max_tokens is 8,192, this server's 512"):
        async with open_ranker(Settings(engine="ray", max_tokens=512)):
            pass
    with pytest.raises(BadSettings, match="its checkpoint is not this server's random"):
        async with open_ranker(Settings(engine="ray", model=str(random_checkpoint))):
            pass


async def test_a_missing_application_or_cluster_is_named(cluster: RayCluster) -> None:
    with pytest.raises(SetupError, match=r"no application 'nothing'.*rankd ray deploy"):
        async with open_ranker(Settings(engine="ray", ray_app="nothing")):
            pass
    flags = ("builtin", "--engine", "ray", "--ray-address", "127.0.0.1:9")
    ended = await asyncio.to_thread(calling_serve, *flags)
    assert ended.startswith("rankd: no Ray cluster at 127.0.0.1:9")


def calling_serve(*arguments: str) -> str:
    ended = run("serve", *arguments, "--log-level", "error")
    assert ended.returncode == 1
    return ended.stderr


async def test_replicas_follow_the_waiting_tokens_up_and_down(
    cluster: RayCluster, tmp_path: Path
) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 3,
        "look_back_period_s": 3,
        "upscale_delay_s": 1,
        "downscale_delay_s": 3,
        "policy": {
            "policy_function": "rankd.engines.ray.policy:WaitingTokensPolicy",
            "policy_kwargs": {"seconds_of_patience": 1.0},
        },
    }
    with (
        deployed(sleeping(tmp_path, rate=5_000, autoscaling_config=scaling)),
        front(cluster.address) as server,
    ):
        load = Load(f"{server.url}/v1/rerank")
        await load.calm_run()

        def replicas() -> float:
            return value_of(server.url, "rankd_ray_replicas")

        await load.run(until(lambda: replicas() == 3, "three replicas"), clients=16)
        await until(lambda: replicas() == 1, "one replica")

    assert load.lost == []
    assert load.wrong == []


async def test_a_rolling_update_fails_no_request(cluster: RayCluster, tmp_path: Path) -> None:
    from ray import serve

    # The cluster has room for both old and both new replicas.
    half = {"num_cpus": 0.5}
    with (
        deployed(sleeping(tmp_path, num_replicas=2, ray_actor_options=half)),
        front(cluster.address) as server,
    ):
        load = Load(f"{server.url}/v1/rerank")
        await load.calm_run()
        before = set(replica_pids())

        async def update() -> None:
            app = sleeping(tmp_path, rate=60_000, num_replicas=2, ray_actor_options=half)
            await asyncio.to_thread(serve.run, app, name="rankd", route_prefix=None)
            await until(lambda: not before & set(replica_pids()), "the end of the old replicas")

        await load.run(update())

    assert load.answered > 0
    assert load.lost == []
    assert load.wrong == []


async def test_log_lines_of_replicas_carry_the_request_id(sleepers: RayCluster) -> None:
    with front(sleepers.address) as server:
        body = {"query": "q", "documents": ["one", "two"]}
        answer = await asyncio.to_thread(ask, server, body)
        request_id = answer.headers["x-request-id"]

        def lines() -> list[str]:
            logs = (sleepers.folder / "session_latest" / "logs").glob("worker-*.err")
            return [
                line
                for log in logs
                for line in log.read_text(errors="replace").splitlines()
                if request_id in line
            ]

        found = await until(lines, "a line in a replica's log")

    assert json.loads(found[0])["request_id"] == request_id


REPLICA = "ray::ServeReplica:rankd:ScoringReplica"

# What docs/security.md lists as open on all addresses: ports of one process, by its name.
OPEN_TO_ALL = {
    "gcs_server": 1,
    "dashboard.py": 1,
    "raylet": 2,
    "ray::DashboardAgent": 2,
    REPLICA: 2,
}


def name_of(process: Any) -> str:
    """Its title, or the script or module that Python runs."""
    name = str(process.name())
    if not name.startswith("python"):
        return name
    script = next(str(word) for word in process.cmdline()[1:] if not word.startswith("-"))
    return script.rpartition("/")[2]


async def test_ports_are_open_only_where_the_page_on_security_says(sleepers: RayCluster) -> None:
    import psutil

    with front(sleepers.address) as server:
        await asyncio.to_thread(ask, server, {"query": "q", "documents": ["one"]})
        listeners = [
            (process.pid, name_of(process), connection.laddr.ip)
            for process in map(psutil.Process, sleepers.pids())
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    names = {name for _, name, _ in listeners}
    open_to_all = Counter((pid, name) for pid, name, ip in listeners if ip in ("0.0.0.0", "::"))

    assert OPEN_TO_ALL.keys() <= names
    # Serve's own HTTP would take requests without keys and limits.
    assert not any(name.startswith(("ray::ProxyActor", "ray::HTTPProxy")) for name in names)
    for (_, name), ports in open_to_all.items():
        workers = 1 if name.startswith("ray::") else 0
        assert ports <= OPEN_TO_ALL.get(name, workers), (name, ports, listeners)
