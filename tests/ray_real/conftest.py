"""One Ray cluster for all of these tests: three nodes with one CPU each."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.ray_cluster import RayCluster, deployed, shared_cluster

NODES = 3

# In environments without Ray there is nothing to import.
collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]


@pytest.fixture
def cluster() -> RayCluster:
    """The cluster, with all of its nodes."""
    cluster = shared_cluster(NODES)
    cluster.restore(NODES)
    cluster.wait_for_nodes(NODES)
    return cluster


@pytest.fixture
def sleepers(cluster: RayCluster, tmp_path: Path) -> Iterator[RayCluster]:
    """Three replicas that sleep instead of computing, as the application `rankd`."""
    from support.ray_replicas import sleeping

    with deployed(sleeping(tmp_path, num_replicas=NODES)):
        yield cluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat tests that ask for a round. Each has a front that has seen no death yet."""
    if "ray_round" in metafunc.fixturenames:
        metafunc.parametrize("ray_round", range(metafunc.config.getoption("--ray-rounds")))
