"""What systemd is told, at a real socket like its own."""

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
def mailbox(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(str(tmp_path / "notify"))
        box.settimeout(30)
        yield box


def address(box: socket.socket) -> str:
    return str(box.getsockname())


def waiting(box: socket.socket) -> list[str]:
    """The lines that are there already."""
    said = []
    while select.select([box], [], [], 0)[0]:
        said += box.recv(4096).decode().split("\n")
    return said


def until(box: socket.socket, line: str) -> list[str]:
    """All lines up to that one; fails after half a minute of silence."""
    said: list[str] = []
    while line not in said:
        said += box.recv(4096).decode().split("\n")
    return said


def test_a_server_is_ready_when_scores_can_be_had_and_says_that_it_stops(
    mailbox: socket.socket,
) -> None:
    flags = ("--engine", "fake", "--drain-delay-seconds", "2")
    with serving(*flags, NOTIFY_SOCKET=address(mailbox)) as server:
        began = until(mailbox, "READY=1")
        ready = get(f"{server.url}/readyz")
        alive = until(mailbox, "WATCHDOG=1")
        server.process.send_signal(signal.SIGTERM)
        stopping = until(mailbox, "STOPPING=1")
        open_still = get(f"{server.url}/livez")
        server.ended()
        rest = waiting(mailbox)

    assert began[0] == "STATUS=loading builtin"
    assert began.count("READY=1") == 1
    assert ready.status_code == 200
    assert "STATUS=serving builtin" in [*began, *alive]
    assert not {"READY=1", "STOPPING=1"} & {*alive, *rest}
    assert open_still.status_code == 200
    assert "READY=1" not in stopping


def test_who_waits_for_ready_finds_the_port_open_and_scores(mailbox: socket.socket) -> None:
    port = free_port()
    server = subprocess.Popen(
        command("serve", "--threads", "1", "--port", str(port)),
        env=os.environ | {"NOTIFY_SOCKET": address(mailbox)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(mailbox, "READY=1")
        ready = get(f"http://127.0.0.1:{port}/readyz")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)

    assert ready.status_code == 200


def test_the_watchdog_is_fed_until_the_server_hangs(mailbox: socket.socket) -> None:
    with serving("--engine", "fake", NOTIFY_SOCKET=address(mailbox)) as server:
        for _ in range(2):
            until(mailbox, "WATCHDOG=1")
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        waiting(mailbox)
        time.sleep(2.5)
        hung = waiting(mailbox)
        server.process.send_signal(signal.SIGCONT)
        until(mailbox, "WATCHDOG=1")

    assert hung == []


def test_a_server_that_cannot_start_was_never_ready(mailbox: socket.socket) -> None:
    ended = run("serve", "/no/such/model", "--port", "0", NOTIFY_SOCKET=address(mailbox))

    assert ended.returncode == 3
    assert waiting(mailbox) == ["STATUS=loading /no/such/model"]


def test_an_abstract_address_is_found() -> None:
    name = f"rankd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(f"\0{name}")
        took = notify(READY, "STATUS=two\nlines", environment={"NOTIFY_SOCKET": f"@{name}"})
        said = box.recv(4096)

    assert took
    assert said == b"READY=1\nSTATUS=two lines"


@pytest.mark.parametrize("given", ["", "relative", "vsock:2:1", "/no/such/socket", "/" + "x" * 200])
def test_nobody_there_is_no_reason_to_stop(given: str) -> None:
    assert notify(READY, environment={"NOTIFY_SOCKET": given}) is False
    assert notify(READY, environment={}) is False


def test_a_full_mailbox_holds_nothing_up(mailbox: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": address(mailbox)}
    sent = 0
    while notify("STATUS=" + "x" * 1000, environment=environment):
        sent += 1
        assert sent < 1_000_000

    assert sent > 0
