"""docker/cpu.Dockerfile, built and run."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import rankd
from support.buildah import bytes_of
from support.checkpoints import make_checkpoint
from support.containers import Image, Options, output, running
from support.hub import MODEL, hub

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]


def hardened(volume: Path, user: str | None = None, **environment: str) -> Options:
    """A root that cannot be written, and one volume that can."""
    return Options(user=user, volumes=[f"{volume}:/data"], read_only=True, environment=environment)


@pytest.mark.parametrize("user", [None, "12345", "12345:0", "0"])
def test_it_serves_as_any_user_with_one_volume_to_write(
    cpu: Image, volume: Path, user: str | None
) -> None:
    with running(cpu, options=hardened(volume, user)) as server:
        server.wait_until_ready()
        health = server.execute(*cpu.health)
        ranked = server.ranked()
        page = server.request("GET", "/ui", follow_redirects=True)

        assert (health.returncode, health.stderr) == (0, "")
        assert ranked == [1, 0]
        assert "<html" in page.text
        assert server.stop() == 0, server.output


def test_it_serves_without_any_option(cpu: Image) -> None:
    """`docker run rankd:cpu`: a root that can be written, by its own user."""
    with running(cpu, options=Options(drop_capabilities=False)) as server:
        server.wait_until_ready()

        assert server.execute("id", "-u").stdout == "1000\n"
        assert server.execute("sh", "-c", "touch /data/here /tmp/there").returncode == 0
        assert server.stop() == 0


def test_docker_stop_lets_a_request_finish(cpu: Image, volume: Path) -> None:
    """SIGTERM goes to pid 1, which the kernel treats specially, while it computes."""
    text = "Beijing is the capital of China. " * 100
    body = {"query": "capital", "documents": [f"{index} {text}" for index in range(150)]}
    with running(cpu, options=hardened(volume)) as server, ThreadPoolExecutor(1) as thread:
        server.wait_until_ready()
        sent = thread.submit(server.request, "POST", "/v1/rerank", json=body)
        while not re.search(
            r"^rankd_waiting_requests [1-9]", server.request("GET", "/metrics").text, re.M
        ):
            assert not sent.done(), "it was over before it was seen"

        status = server.stop()

        assert sent.result().status_code == 200
        assert len(sent.result().json()["results"]) == len(body["documents"])
        assert status == 0, server.output


def test_a_model_comes_from_a_mirror_with_a_token_and_then_from_the_volume(
    cpu: Image, volume: Path, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model", vocab_size=151_680)
    with hub(folder, token="hf_secret") as url:
        mirror = hardened(volume, "12345", HF_ENDPOINT=url, HF_HUB_DISABLE_XET="1")
        mirror = replace(mirror, own_network=False)
        refused, _ = output(cpu, "download", MODEL, options=mirror)
        given = replace(mirror, environment={**mirror.environment, "HF_TOKEN": "hf_secret"})
        status, printed = output(cpu, "download", MODEL, options=given)

    assert refused == 3
    assert status == 0, printed
    assert f"/data/huggingface/hub/models--{MODEL.replace('/', '--')}" in printed
    # Random weights do not pass the self-check.
    offline = hardened(volume, "12345", HF_HUB_OFFLINE="1", RANKD_SELF_CHECK="off")
    with running(cpu, MODEL, options=offline) as server:
        server.wait_until_ready()
        assert server.request("GET", "/version").json()["model"] == MODEL


@pytest.mark.parametrize(
    ("arguments", "port"),
    [(["builtin"], 8000), (["--port", "9000"], 9000), (["/model", "--port", "9000"], 9000)],
)
def test_a_model_or_options_alone_serve(
    cpu: Image, volume: Path, builtin: Path, arguments: list[str], port: int
) -> None:
    options = Options(volumes=[f"{volume}:/data", f"{builtin}:/model:ro"], read_only=True)
    with running(cpu, *arguments, options=options) as server:
        server.wait_until_ready(port)


def test_commands_stay_commands(cpu: Image) -> None:
    assert output(cpu, "--version") == (0, f"rankd {rankd.__version__}\n")
    assert "This set-up gives right scores." in output(cpu, "check")[1]


def test_nobody_but_root_can_write_outside_of_data_and_temporary_folders(cpu: Image) -> None:
    command = ["find", "/", "-xdev", "-writable", "-not", "-type", "l"]
    _, found = output(cpu, *command, options=Options(user="12345", entrypoint=[]))

    folders = [line for line in found.splitlines() if "Permission denied" not in line]
    assert sorted(folders) == ["/data", "/run/lock", "/tmp", "/var/tmp"]


def test_it_has_no_compiler_and_no_pip(cpu: Image) -> None:
    installers = re.compile(r"pip[\d.]*|ensurepip|setuptools|.*\.whl")
    compilers = re.compile(r"(cc|(.*-)?(gcc|g\+\+|clang))(-\d+)?")
    # In etc, the build left empty places of pip's files of settings.
    folders = [cpu.root / name for name in ("usr", "opt", "data", "home", "root", "tmp", "var")]
    files = [path for folder in folders for path in folder.rglob("*")]

    assert len(files) > 10_000
    assert [str(path) for path in files if installers.fullmatch(path.name)] == []
    programs = [path.name for path in files if path.parent.name in ("bin", "sbin")]
    assert "rankd" in programs
    assert [name for name in programs if compilers.fullmatch(name)] == []


def test_it_is_small(cpu: Image) -> None:
    assert 0.5e9 < bytes_of(cpu.root) < 1.3e9


def test_it_says_what_it_is(cpu: Image) -> None:
    labels = cpu.config["Labels"]

    assert labels["org.opencontainers.image.version"] == rankd.__version__
    assert labels["org.opencontainers.image.revision"] == "abc123"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "8000/tcp" in cpu.config["ExposedPorts"]
