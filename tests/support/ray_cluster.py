"""A Ray cluster on this machine: nodes are `ray start` on 127.0.0.x, each with one CPU."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.servers import family, free_port

TESTS = Path(__file__).parent.parent
HEAD = "127.0.0.2"

# Read when Ray is imported, by nodes and fronts alike. Without it the user's own token would count,
# if there is one.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

ATTEMPTS = 5

# Generous: other programs may be busy on this machine.
SECONDS = 300


@dataclass(eq=False)
class Node:
    """One `ray start`, with all its processes."""

    ip: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: it hangs, and so does each replica on it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: int) -> None:
        for pid in family(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signum)


@dataclass
class RayCluster:
    """A head and a node for fronts, neither of which runs replicas, and nodes that do.

    Attributes:
        address: HOST:PORT of the head.
        nodes: those that run replicas.
    """

    folder: Path
    address: str = f"{HEAD}:0"
    nodes: list[Node] = field(default_factory=list)
    _others: list[Node] = field(default_factory=list)
    _next: int = 3

    def start(self, nodes: int) -> None:
        self.address = f"{HEAD}:{free_port()}"
        port = self.address.rpartition(":")[2]
        self._others.append(
            self._run(HEAD, "--head", "--port", port, "--num-cpus", "0", "--dashboard-port", "0")
        )
        # Drivers of this machine use the node that has its address.
        self._others.append(self._run("", "--address", self.address, "--num-cpus", "0"))
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> Node:
        node = self._run(f"127.0.0.{self._next}", "--address", self.address, "--num-cpus", "1")
        self._next += 1
        self.nodes.append(node)
        return node

    def wait_for_nodes(self, count: int) -> None:
        import ray

        def are_there() -> bool:
            assert all(node.process.poll() is None for node in [*self.nodes, *self._others])
            return bool(ray.cluster_resources().get("CPU") == count)

        wait_for(are_there, f"{count} nodes")

    def pids(self) -> list[int]:
        """Of all processes of all nodes."""
        return [pid for node in [*self._others, *self.nodes] for pid in family(node.process.pid)]

    def kill_head(self) -> None:
        self._others[0].kill()

    def restore(self, nodes: int) -> None:
        """Kill nodes that hang, and start others until there are `nodes`."""
        self.nodes = [node for node in self.nodes if node.process.poll() is None]
        for _ in range(nodes - len(self.nodes)):
            self.add_node()

    def stop(self) -> None:
        for node in [*self.nodes, *self._others]:
            node.kill()

    def _run(self, ip: str, *arguments: str) -> Node:
        """Start a node; again, if it is not up within the half minute that Ray allows it."""
        for _ in range(ATTEMPTS):
            log = self.folder / f"node-{ip or 'front'}.log"
            node = Node(ip, self._spawn(ip, log, *arguments))
            while node.process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return node
                time.sleep(0.1)
        raise AssertionError(f"no node {ip} after {ATTEMPTS} attempts: {log.read_text()[-2000:]}")

    def _spawn(self, ip: str, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        address = ["--node-ip-address", ip] if ip else []
        head = [
            *("--temp-dir", str(self.folder), "--include-dashboard", "false", "--no-monitor"),
            *("--ray-client-server-port", str(free_port())),
        ]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments),
            *("--object-store-memory", "100000000", "--disable-usage-stats", *address),
            *("--include-log-monitor", "false"),
            *(head if "--head" in arguments else ()),
        ]
        with log.open("wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=environment())


def environment() -> dict[str, str]:
    """For nodes: replicas import tests' own classes."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        # Replicas report each second; the default is ten.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        # By default workers get what other programs leave of the processor.
        "RAY_worker_niceness": "0",
    }


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Wait until a condition is true; returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.1)
    return value


async def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """As `wait_for`, in a coroutine."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} seconds"
        await asyncio.sleep(0.05)
    return value


_shared: list[RayCluster] = []


def shared_cluster(nodes: int = 3) -> RayCluster:
    """The cluster of this test session, with this process as a driver."""
    if not _shared:
        import ray
        from ray import serve

        cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp")))
        atexit.register(cluster.stop)
        cluster.start(nodes)
        _shared.append(cluster)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        cluster.wait_for_nodes(nodes)
        serve.start(proxy_location="Disabled")
    return _shared[0]


@contextmanager
def deployed(application: Any, name: str = "rankd") -> Iterator[None]:
    """An application that runs on the shared cluster."""
    from ray import serve

    serve.run(application, name=name, route_prefix=None)
    try:
        yield
    finally:
        serve.delete(name)


def replica_pids(name: str = "rankd") -> list[int]:
    """Processes of the application's replicas that run."""
    title = f"ray::ServeReplica:{name}:".encode()
    pids = [pid for node in _shared[0].nodes for pid in family(node.process.pid)]
    return [pid for pid in pids if _title(pid).startswith(title)]


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
