"""`rankd score --ray`: files on a Ray cluster, through kills of the command and of an actor."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.offline.cluster import ActorNeeds, actor_needs, for_actor
from support.offline import pairs, read_rows, score_files, write_rows
from support.servers import command, family, free_port, run

FILES = 6
ROWS = 3000


def test_an_actor_takes_a_device_of_the_cluster_or_the_threads_of_the_settings() -> None:
    gpus, npus, cpus = {"GPU": 8.0, "CPU": 96.0}, {"NPU": 8.0, "CPU": 96.0}, {"CPU": 96.0}
    sharded = Settings(engine="vllm", vllm_args={"tensor_parallel_size": 2})

    assert actor_needs(Settings(), gpus) == ActorNeeds("GPU", 1)
    assert actor_needs(Settings(), npus) == ActorNeeds("NPU", 1)
    assert actor_needs(Settings(threads=4), cpus) == ActorNeeds("CPU", 4)
    assert actor_needs(Settings(device="cpu"), gpus) == ActorNeeds("CPU", 1)
    assert actor_needs(Settings(engine="fake"), gpus) == ActorNeeds("CPU", 1)
    assert actor_needs(sharded, gpus).options == {"num_gpus": 2}
    chosen = for_actor(sharded, ActorNeeds("GPU", 2)).vllm_args
    assert chosen == {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}


def test_keys_of_a_server_do_not_reach_the_cluster() -> None:
    settings = for_actor(Settings(api_keys=("a-key-of-the-server",)), ActorNeeds("CPU", 1))

    assert settings.api_keys == ()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def token() -> Iterator[None]:
    """Who wants to use the cluster needs it; commands inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, token: None) -> Iterator[str]:
    """The address of a Ray node on 127.0.0.5 with two CPUs."""
    # Ray's sockets are in it, whose paths must be short.
    folder = Path("/tmp") / f"ro-{os.getpid()}"
    log = tmp_path_factory.mktemp("ray") / "log"
    address = f"127.0.0.5:{free_port()}"
    start = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.5", "--port", address.rpartition(":")[2]),
        *("--num-cpus", "2", "--object-store-memory", "100000000", "--temp-dir", str(folder)),
        *("--include-dashboard", "false", "--disable-usage-stats"),
        *("--ray-client-server-port", str(free_port())),
    ]
    with log.open("wb") as out:
        node = subprocess.Popen(start, stdout=out, stderr=out)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text(), node, log)
        yield address
    finally:
        for pid in family(node.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


def finished(out: Path) -> int:
    return len(list(out.glob("*.jsonl")))


def start_command(source: Path, out: Path, cluster: str) -> subprocess.Popen[bytes]:
    with (out.parent / "log").open("wb") as log:
        return subprocess.Popen(
            command("score", str(source), "--out", str(out), "--engine", "fake", "--ray", cluster),
            stdout=log,
            stderr=log,
        )


def actors() -> list[int]:
    """Processes of the pool's actors."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"ray::MapWorker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.ray
def test_a_command_that_is_killed_twice_scores_each_row_once(tmp_path: Path, cluster: str) -> None:
    names = [f"part-{number}.jsonl" for number in range(FILES)]
    for number, name in enumerate(names):
        write_rows(tmp_path / "in" / name, pairs(ROWS, first=number * ROWS))
    out = tmp_path / "out"

    for enough in (1, 3):
        process = start_command(tmp_path / "in", out, cluster)
        wait_for(lambda least=enough: finished(out) >= least, process, tmp_path / "log")
        process.kill()
        process.wait()
        assert finished(out) < FILES
    kept = {path.name: path.stat().st_ino for path in out.glob("*.jsonl")}
    ended = run(
        *("score", str(tmp_path / "in"), "--out", str(out)), "--engine", "fake", "--ray", cluster
    )

    assert ended.returncode == 0, ended.stderr
    assert f"{FILES} files in {out} ({len(kept)} of them done before)" in ended.stdout
    ids = [row["id"] for name in names for row in read_rows(out / name)]
    assert ids == list(range(FILES * ROWS))
    assert {name: (out / name).stat().st_ino for name in kept} == kept
    score_files(tmp_path / "in", "--out", tmp_path / "local")
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.ray
def test_the_files_of_an_actor_that_is_killed_are_scored_by_another(
    tmp_path: Path, cluster: str
) -> None:
    names = [f"part-{number}.jsonl" for number in range(FILES)]
    for number, name in enumerate(names):
        write_rows(tmp_path / "in" / name, pairs(ROWS, first=number * ROWS))
    out = tmp_path / "out"

    process = start_command(tmp_path / "in", out, cluster)
    wait_for(lambda: finished(out) >= 1 and bool(actors()), process, tmp_path / "log")
    os.kill(actors()[0], signal.SIGKILL)
    process.wait(timeout=300)

    assert process.returncode == 0
    ids = [row["id"] for name in names for row in read_rows(out / name)]
    assert ids == list(range(FILES * ROWS))


@pytest.mark.ray
def test_errors_are_of_one_line_and_name_file_and_line(tmp_path: Path, cluster: str) -> None:
    bad = {"query": "q", "document": None}
    file = write_rows(tmp_path / "rows.jsonl", [*pairs(3), bad])
    arguments = ("score", str(file), "--engine", "fake", "--out", str(tmp_path / "out"))

    refused = run(*arguments, "--ray", cluster)
    unknown = run(*arguments, "--ray", cluster, "--preset", "nonsense")
    nowhere = run(*arguments, "--ray", f"127.0.0.1:{free_port()}")

    assert refused.returncode == 2
    assert f"rankd: {file}:4: 'document' must be a string" in refused.stderr
    assert unknown.returncode == 2
    assert "rankd: 'nonsense' is neither in [instructions] nor 'default'" in unknown.stderr
    assert nowhere.returncode == 1
    assert "rankd: no Ray cluster at 127.0.0.1:" in nowhere.stderr
