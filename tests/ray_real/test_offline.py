"""`rankd score --ray`: files on a Ray cluster, through kills of the command and of an actor."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.offline.cluster import ActorNeeds, actor_needs, for_actor
from support.offline import pairs, read_rows, score_files, write_rows
from support.ray_cluster import RayCluster, wait_for
from support.servers import command, family, free_port

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


def finished(out: Path) -> int:
    return len(list(out.glob("*.jsonl")))


def has_finished(out: Path, enough: int) -> bool:
    return finished(out) >= enough


def start_command(source: Path, out: Path, address: str, *more: str) -> subprocess.Popen[bytes]:
    """Start `rankd score --ray` on the fake engine; its output is in the file `log`."""
    given = ("score", str(source), "--out", str(out), "--engine", "fake", "--ray", address, *more)
    with (out.parent / "log").open("wb") as log:
        return subprocess.Popen(command(*given), stdout=log, stderr=log)


def run_command(source: Path, out: Path, address: str, *more: str) -> tuple[int, str]:
    """Its exit status and its output."""
    process = start_command(source, out, address, *more)
    process.wait(timeout=300)
    return process.returncode, (out.parent / "log").read_text()


def actors(cluster: RayCluster) -> list[int]:
    """Processes of the pool's actors."""
    found = []
    for pid in [pid for node in cluster.nodes for pid in family(node.process.pid)]:
        with suppress(OSError):
            if b"ray::MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.ray
def test_a_command_that_is_killed_twice_scores_each_row_once(
    tmp_path: Path, cluster: RayCluster
) -> None:
    names = [f"part-{number}.jsonl" for number in range(FILES)]
    for number, name in enumerate(names):
        write_rows(tmp_path / "in" / name, pairs(ROWS, first=number * ROWS))
    out = tmp_path / "out"

    for enough in (1, 3):
        process = start_command(tmp_path / "in", out, cluster.address)
        wait_for(partial(has_finished, out, enough), f"{enough} files")
        process.kill()
        process.wait()
        assert finished(out) < FILES
    kept = {path.name: path.stat().st_ino for path in out.glob("*.jsonl")}
    status, output = run_command(tmp_path / "in", out, cluster.address)

    assert status == 0, output
    assert f"{FILES} files in {out} ({len(kept)} of them done before)" in output
    ids = [row["id"] for name in names for row in read_rows(out / name)]
    assert ids == list(range(FILES * ROWS))
    assert {name: (out / name).stat().st_ino for name in kept} == kept
    score_files(tmp_path / "in", "--out", tmp_path / "local")
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.ray
def test_the_files_of_an_actor_that_is_killed_are_scored_by_another(
    tmp_path: Path, cluster: RayCluster
) -> None:
    names = [f"part-{number}.jsonl" for number in range(FILES)]
    for number, name in enumerate(names):
        write_rows(tmp_path / "in" / name, pairs(ROWS, first=number * ROWS))
    out = tmp_path / "out"

    process = start_command(tmp_path / "in", out, cluster.address)
    wait_for(lambda: finished(out) >= 1 and bool(actors(cluster)), "a file and an actor")
    os.kill(actors(cluster)[0], signal.SIGKILL)
    process.wait(timeout=300)

    assert process.returncode == 0
    ids = [row["id"] for name in names for row in read_rows(out / name)]
    assert ids == list(range(FILES * ROWS))


@pytest.mark.ray
def test_errors_are_of_one_line_and_name_file_and_line(tmp_path: Path, cluster: RayCluster) -> None:
    bad = {"query": "q", "document": None}
    file = write_rows(tmp_path / "rows.jsonl", [*pairs(3), bad])
    out = tmp_path / "out"

    refused = run_command(file, out, cluster.address)
    unknown = run_command(file, out, cluster.address, "--preset", "nonsense")
    nowhere = run_command(file, out, f"127.0.0.1:{free_port()}")

    assert refused[0] == 2
    assert f"rankd: {file}:4: 'document' must be a string" in refused[1]
    assert unknown[0] == 2
    assert "rankd: 'nonsense' is neither in [instructions] nor 'default'" in unknown[1]
    assert nowhere[0] == 1
    assert "rankd: no Ray cluster at 127.0.0.1:" in nowhere[1]
