"""`rankd probe`, the health check of a container: over HTTP and HTTPS, and without a server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.servers import Server, run, serving

DOCKER = Path(__file__).parents[2] / "docker"


def port_of(server: Server) -> str:
    return server.url.rsplit(":", 1)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for another host name."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"),
            *("-subj", "/CN=rank.example.com"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def test_a_ready_server_is_found_by_environment_variables() -> None:
    with serving("--engine", "fake", "--api-key", "k") as server:
        ended = run("probe", RANKD_HOST="0.0.0.0", RANKD_PORT=port_of(server))

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, True])
def test_a_server_with_https_is_asked_over_https(folder: Path, mutual: bool) -> None:
    flags = ["--ssl-certfile", str(folder / "cert.pem"), "--ssl-keyfile", str(folder / "key.pem")]
    if mutual:
        flags += ["--ssl-ca-certs", str(folder / "cert.pem")]
    with serving("--engine", "fake", *flags) as server:
        ended = run("probe", *flags, "--port", port_of(server))
        plain = run("probe", "--port", port_of(server))

    assert (ended.returncode, ended.stderr) == (0, "")
    assert plain.returncode == 1


def test_without_a_server_the_error_is_one_line() -> None:
    ended = run("probe", "--port", "1")

    assert ended.returncode == 1
    assert ended.stderr.startswith("rankd: nothing answers at 127.0.0.1:1: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("image", ["cpu", "cuda", "ascend"])
def test_every_image_has_this_health_check(image: str) -> None:
    text = (DOCKER / f"{image}.Dockerfile").read_text()

    assert 'CMD ["rankd", "probe"]' in text
    assert "http://127.0.0.1" not in text
