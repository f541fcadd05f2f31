"""Messages to systemd, over a real datagram socket."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankd.server.systemd import READY, notify
from support.servers import command, free_port, get, run, serving


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(str(tmp_path / "notify"))
        box.settimeout(30)
        yield box


def path_of(box: socket.socket) -> str:
    return str(box.getsockname())


def waiting(box: socket.socket) -> list[str]:
    """The lines that have arrived."""
    lines = []
    while select.select([box], [], [], 0)[0]:
        lines += box.recv(4096).decode().split("\n")
    return lines


def until(box: socket.socket, line: str) -> list[str]:
    """All lines up to this one; fails after half a minute without a message."""
    lines: list[str] = []
    while line not in lines:
        lines += box.recv(4096).decode().split("\n")
    return lines


@pytest.mark.slow
def test_a_server_reports_ready_then_its_watchdog_then_stopping(
    listener: socket.socket,
) -> None:
    flags = ("--engine", "fake", "--drain-delay-seconds", "2")
    with serving(*flags, NOTIFY_SOCKET=path_of(listener)) as server:
        began = until(listener, "READY=1")
        ready = get(f"{server.url}/readyz")
        alive = until(listener, "WATCHDOG=1")
        server.process.send_signal(signal.SIGTERM)
        stopping = until(listener, "STOPPING=1")
        open_still = get(f"{server.url}/livez")
        server.ended()
        rest = waiting(listener)

    assert began[0] == "STATUS=loading builtin"
    assert began.count("READY=1") == 1
    assert ready.status_code == 200
    assert "STATUS=serving builtin" in [*began, *alive]
    assert not {"READY=1", "STOPPING=1"} & {*alive, *rest}
    assert open_still.status_code == 200
    assert "READY=1" not in stopping


def test_after_ready_the_port_is_open_and_the_server_is_ready(listener: socket.socket) -> None:
    port = free_port()
    server = subprocess.Popen(
        command("serve", "--threads", "1", "--port", str(port)),
        env=os.environ | {"NOTIFY_SOCKET": path_of(listener)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(listener, "READY=1")
        ready = get(f"http://127.0.0.1:{port}/readyz")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)

    assert ready.status_code == 200


@pytest.mark.slow
def test_watchdog_messages_stop_when_the_server_hangs(listener: socket.socket) -> None:
    with serving("--engine", "fake", NOTIFY_SOCKET=path_of(listener)) as server:
        for _ in range(2):
            until(listener, "WATCHDOG=1")
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        waiting(listener)
        time.sleep(2.5)
        hung = waiting(listener)
        server.process.send_signal(signal.SIGCONT)
        until(listener, "WATCHDOG=1")

    assert hung == []


def test_a_server_that_cannot_start_never_reports_ready(listener: socket.socket) -> None:
    ended = run("serve", "/no/such/model", "--port", "0", NOTIFY_SOCKET=path_of(listener))

    assert ended.returncode == 3
    assert waiting(listener) == ["STATUS=loading /no/such/model"]


def test_an_abstract_socket_address_works() -> None:
    name = f"rankd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(f"\0{name}")
        was_sent = notify(READY, "STATUS=two\nlines", environment={"NOTIFY_SOCKET": f"@{name}"})
        message = box.recv(4096)

    assert was_sent
    assert message == b"READY=1\nSTATUS=two lines"


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1", "/no/such/socket", "/" + "x" * 200]
)
def test_without_a_listener_nothing_is_sent(address: str) -> None:
    assert notify(READY, environment={"NOTIFY_SOCKET": address}) is False
    assert notify(READY, environment={}) is False


def test_a_full_receive_queue_does_not_block(listener: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": path_of(listener)}
    sent = 0
    while notify("STATUS=" + "x" * 1000, environment=environment):
        sent += 1
        assert sent < 1_000_000

    assert sent > 0
