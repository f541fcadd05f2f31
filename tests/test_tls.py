"""HTTPS with a certificate of our own; what is wrong with one is a sentence."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from servers import run, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

BODY = {"query": "q", "documents": ["d"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    _certificate(folder, "server", "-addext", "subjectAltName=IP:127.0.0.1", "-noenc")
    _certificate(folder, "locked", "-passout", "pass:s3cret")
    return folder


def _certificate(folder: Path, name: str, *options: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=x"),
            *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
            *options,
        ],
        check=True,
        capture_output=True,
    )


def _flags(folder: Path, name: str = "server") -> list[str]:
    files = [f"--ssl-certfile={folder / name}.pem", f"--ssl-keyfile={folder / name}.key"]
    return ["--engine", "fake", *files]


def test_a_client_that_trusts_the_certificate_is_answered(folder: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(folder / "server.pem"))
    with serving(*_flags(folder)) as server:
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(f"{server.url}/v1/rerank", json=BODY)
        long = httpx.get(f"{server.url}/livez", headers={"a": "x" * 70_000}, verify=trusting)

    assert server.url.startswith("https://")
    assert reply.status_code == 200
    assert long.status_code == 431


def test_with_authorities_a_client_must_show_a_certificate(folder: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(folder / "server.pem"))
    with serving(*_flags(folder), f"--ssl-ca-certs={folder / 'server.pem'}") as server:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)
        trusting.load_cert_chain(folder / "server.pem", folder / "server.key")
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)

    assert reply.status_code == 200


def test_a_locked_key_is_opened_by_its_password(folder: Path) -> None:
    with serving(*_flags(folder, "locked"), "--ssl-keyfile-password", "s3cret") as server:
        assert httpx.get(f"{server.url}/livez", verify=False).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ssl-certfile", "/no/such"], "cannot read ssl_certfile /no/such: No such file"),
        (["--ssl-certfile", "{}/server.key"], "cannot be used"),
        (["--ssl-certfile", "{}/server.pem", "--ssl-keyfile", "{}/locked.key"], "cannot be used"),
        (["--ssl-keyfile", "{}/server.key"], "ssl_keyfile is of no use without ssl_certfile"),
    ],
)
def test_what_cannot_be_used_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(folder) for argument in arguments]

    ended = run("serve", "--engine", "fake", "--port", "0", *given)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
