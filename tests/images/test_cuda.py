"""docker/cuda.Dockerfile, built on a stand-in for vLLM's image and run with vLLM on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import rankd
from support import vllm_image
from support.containers import Image, Options, output, running

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]

SMALL = ("--max-tokens", "2048", "--engine-wait-seconds", "300")


def options(volume: Path, user: str | None = None, **environment: str) -> Options:
    """As docs/deployment.md hardens it: one volume, and /tmp in memory."""
    return Options(
        user=user,
        volumes=[vllm_image.volume(), f"{volume}:/data"],
        tmpfs=["/tmp"],
        read_only=True,
        environment=environment,
    )


def state(volume: Path) -> Mapping[str, int]:
    """When each file was last written."""
    files = (path for path in volume.rglob("*") if path.is_file())
    return {str(path.relative_to(volume)): path.stat().st_mtime_ns for path in files}


def serve_once(cuda: Image, volume: Path, user: str | None = None) -> Mapping[str, int]:
    """Start it, rank, stop it; gives the state of the volume."""
    with running(cuda, "builtin", *SMALL, options=options(volume, user)) as server:
        server.wait_until_ready()
        version = server.request("GET", "/version").json()
        ranked = server.ranked()
        who = server.execute("id", "-u").stdout.strip()
        health = server.execute(*cuda.health)

        assert version["engine"] == "vllm"
        assert ranked == [1, 0]
        assert who == (user or "10001")
        assert health.returncode == 0, health.stderr
        assert server.stop() == 0, server.output
        assert "Permission denied" not in server.output
        assert "Read-only file system" not in server.output
    return state(volume)


def test_vllm_serves_and_its_second_start_uses_what_the_first_one_stored(
    cuda: Image, volume: Path
) -> None:
    first, second = serve_once(cuda, volume), serve_once(cuda, volume)

    stored = {name: written for name, written in first.items() if name.startswith("vllm/")}
    assert stored, first
    assert {name: second[name] for name in stored} == stored


def test_vllm_serves_as_a_user_that_the_image_does_not_know(cuda: Image, volume: Path) -> None:
    assert serve_once(cuda, volume, user="12345")


def test_the_dockerfile_left_vllms_packages_alone(cuda: Image, volume: Path) -> None:
    asked = "import torch, vllm, rankd; print(torch.__file__, vllm.__file__, rankd.__version__)"
    inside = Options(entrypoint=["python3"], volumes=[vllm_image.volume()])
    status, printed = output(cuda, "-c", asked, options=inside)

    assert status == 0, printed
    assert printed.split()[-1] == rankd.__version__
    assert (cuda.root / "data").stat().st_mode & 0o7777 == 0o1777
    assert cuda.config["Entrypoint"] == ["rankd-entrypoint"]
    assert cuda.config["User"] == "10001"


def test_all_extras_that_the_documentation_promises_are_there(cuda: Image) -> None:
    modules = "redis.asyncio, opentelemetry.exporter.otlp.proto.http.trace_exporter, limits.aio"
    inside = Options(entrypoint=["python3"], volumes=[vllm_image.volume()])

    assert output(cuda, "-c", f"import {modules}", options=inside) == (0, "")


def test_caches_are_below_the_volume(cuda: Image) -> None:
    places = {
        name: value
        for name, value in cuda.environment.items()
        if "CACHE" in name or name in ("HOME", "HF_HOME", "FLASHINFER_WORKSPACE_BASE")
    }

    assert len(places) == 8
    assert [name for name, value in places.items() if not value.startswith("/data")] == []


def test_a_model_name_alone_is_served(cuda: Image) -> None:
    """It fails for want of the hub, and says so: not as an unknown command."""
    offline = Options(volumes=[vllm_image.volume()], environment={"HF_HUB_OFFLINE": "1"})
    status, printed = output(cuda, "Qwen/Qwen3-Reranker-0.6B", options=offline)

    assert status == 3
    assert "Qwen/Qwen3-Reranker-0.6B" in printed
