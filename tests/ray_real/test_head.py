"""`rankd ray deploy`, and the death of the cluster's head."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.ray_cluster import RayCluster
from support.ray_load import front
from support.servers import run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[RayCluster]:
    """Another cluster than that of the other tests, because it ends with its head."""
    cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp")))
    try:
        cluster.start(1)
        yield cluster
    finally:
        cluster.stop()


def test_a_model_that_is_not_there_is_named(own_cluster: RayCluster) -> None:
    ended = run("ray", "deploy", "/nothing/here", "--ray-address", own_cluster.address)

    assert ended.returncode == 1
    assert "no model folder at '/nothing/here'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_replicas_that_are_deployed_answer_also_when_the_head_has_just_died(
    own_cluster: RayCluster,
) -> None:
    address = ("--ray-address", own_cluster.address)
    ended = run("ray", "deploy", "builtin", "--engine", "fake", *address)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("rankd is ready")

    with front(own_cluster.address) as server:
        url, body = f"{server.url}/v1/rerank", {"query": "q", "documents": ["one", "two"]}
        before = httpx.post(url, json=body, timeout=60)
        own_cluster.kill_head()
        after = [httpx.post(url, json=body, timeout=60) for _ in range(10)]

    assert before.status_code == 200
    assert [one.status_code for one in after] == [200] * 10
    assert [one.json()["results"] for one in after] == [before.json()["results"]] * 10
