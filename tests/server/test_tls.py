"""HTTPS with a self-signed certificate, and error messages for unusable files."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rankd.client import Client, ConnectionFailed
from support.scripted_server import CallClient, call_async, call_sync, rerank
from support.servers import Server, run, serving

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


def test_a_client_that_trusts_the_certificate_gets_a_response(folder: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(folder / "server.pem"))
    with serving(*_flags(folder)) as server:
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(f"{server.url}/v1/rerank", json=BODY)
        long = httpx.get(f"{server.url}/livez", headers={"a": "x" * 70_000}, verify=trusting)

    assert server.url.startswith("https://")
    assert reply.status_code == 200
    assert long.status_code == 431


@pytest.mark.parametrize("client", [call_sync, call_async])
def test_the_python_client_verifies_with_a_file_a_context_or_not_at_all(
    folder: Path, client: CallClient
) -> None:
    file = folder / "server.pem"
    context = ssl.create_default_context(cafile=file)
    with serving(*_flags(folder)) as server:
        ways = (file, str(file), context, False)
        ranked = [client(server.url, rerank, verify=way) for way in ways]
        with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"):
            client(server.url, rerank, retries=0)

    assert [len(answer.results) for answer in ranked] == [1, 1, 1, 1]


def test_a_file_without_certificates_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"verify '.*server\.key'"):
        Client("https://127.0.0.1:1", verify=folder / "server.key")
    with pytest.raises(ValueError, match="verify '/no/such/file'"):
        Client("https://127.0.0.1:1", verify="/no/such/file")


def test_plain_http_at_the_https_port_is_logged_once(folder: Path) -> None:
    with serving(*_flags(folder)) as server:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                httpx.get(server.url.replace("https:", "http:"))
        _, errors = server.stop(signal.SIGTERM)

    assert errors.count("a client sent plain HTTP to this HTTPS port") == 1


def test_with_client_authorities_a_client_needs_a_certificate(folder: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(folder / "server.pem"))
    with serving(*_flags(folder), f"--ssl-ca-certs={folder / 'server.pem'}") as server:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)
        trusting.load_cert_chain(folder / "server.pem", folder / "server.key")
        reply = httpx.post(f"{server.url}/v1/rerank", json=BODY, verify=trusting)

    assert reply.status_code == 200


def test_an_encrypted_key_is_read_with_its_password(folder: Path) -> None:
    with serving(*_flags(folder, "locked"), "--ssl-keyfile-password", "s3cret") as server:
        assert httpx.get(f"{server.url}/livez", verify=False).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ssl-certfile", "/no/such"], "cannot read ssl_certfile /no/such: No such file"),
        (["--ssl-certfile", "{}/server.key"], "cannot be used"),
        (["--ssl-certfile", "{}/server.pem", "--ssl-keyfile", "{}/locked.key"], "cannot be used"),
        (["--ssl-keyfile", "{}/server.key"], "ssl_keyfile has no effect without ssl_certfile"),
    ],
)
def test_an_unusable_file_is_one_error_line(
    folder: Path, arguments: list[str], message: str
) -> None:
    options = [argument.format(folder) for argument in arguments]

    ended = run("serve", "--engine", "fake", "--port", "0", *options)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def _silent(server: Server, held: ExitStack) -> socket.socket:
    host, port = server.url.removeprefix("https://").split(":")
    return held.enter_context(socket.create_connection((host, int(port)), timeout=15))


@pytest.mark.slow
def test_silent_connections_make_room_and_are_closed_in_time(folder: Path) -> None:
    flags = [*_flags(folder), "--max-waiting-requests", "4", "--read-timeout-seconds", "4"]
    limits = {"rankd.server.run.MIN_CONNECTIONS": 5, "rankd.server.run.SPARE_CONNECTIONS": 1}
    with serving(*flags, constants=limits) as server, ExitStack() as held:
        began = time.monotonic()
        oldest, second = _silent(server, held), _silent(server, held)
        for _ in range(66):
            _silent(server, held)
        probe = httpx.get(f"{server.url}/livez", verify=False)
        time.sleep(0.2)  # Until the server has closed that connection.
        last, beyond = _silent(server, held), _silent(server, held)
        oldest.settimeout(2)
        made_room = _closed(oldest)
        for newest in (last, beyond):
            newest.settimeout(0.1)
            with pytest.raises(TimeoutError):
                _closed(newest)
        closed = _closed(second)
        took = time.monotonic() - began
        time.sleep(0.5)
        after = httpx.get(f"{server.url}/livez", verify=False)

    assert probe.status_code == after.status_code == 200
    assert made_room
    assert closed
    assert 3 < took < 45


def _closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


def test_plain_http_is_closed_and_https_is_answered(folder: Path) -> None:
    with (
        serving(*_flags(folder), "--log-level", "debug", "--drain-seconds", "300") as server,
        ExitStack() as held,
    ):
        plain = _silent(server, held)
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _closed(plain)
        with httpx.Client(verify=False) as client:
            answers = [client.post(f"{server.url}/v1/rerank", json=BODY) for _ in range(3)]
        _silent(server, held)
        began = time.monotonic()
        status, errors = server.stop(signal.SIGTERM)

    assert [answer.status_code for answer in answers] == [200] * 3
    assert status == 0
    assert time.monotonic() - began < 200  # Without waiting for the silent connection.
    assert "Traceback" not in errors
