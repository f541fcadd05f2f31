"""Debian's nginx with the files of deploy/nginx, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.programs import program

FILES = Path(__file__).parents[2] / "deploy" / "nginx"

# Debian's nginx.conf, with other folders.
_MAIN = """
daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/rankd.conf;
    {more}
}}
"""


@dataclass(frozen=True)
class Line:
    """One line of the access log (`log_format rankd`).

    Attributes:
        servers: addresses tried, in order; all but the last one failed.
    """

    status: int
    servers: list[str]
    request_id: str


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    url: str
    folder: Path

    def lines(self) -> list[Line]:
        return [_line(text) for text in (self.folder / "access.log").read_text().splitlines()]

    def errors(self) -> str:
        return (self.folder / "error.log").read_text()


def written(folder: Path, servers: Sequence[int], port: int, *, tls: int | None = None) -> Path:
    """Write the files of deploy/nginx with other addresses and folders; gives nginx.conf.

    Args:
        folder: for the configuration, logs, temporary files and certificates.
        servers: ports of two servers.
        tls: port of tls.conf. Default: without tls.conf.
    """
    replacements = {
        "/etc/nginx/rankd/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "127.0.0.1:8001 ": f"127.0.0.1:{servers[0]} ",
        "127.0.0.1:8002 ": f"127.0.0.1:{servers[1]} ",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "listen [::]:80;": "",
        "listen 443 ": f"listen 127.0.0.1:{tls} ",
        "listen [::]:443 ssl http2;": "",
        "/etc/ssl/rankd/": f"{folder}/",
    }
    names = ["upstream.conf", "locations.conf", "rankd.conf", *(["tls.conf"] if tls else [])]
    texts = {name: (FILES / name).read_text() for name in names}
    for old, new in replacements.items():
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    if tls:
        texts["rankd.conf"] = re.sub(r"\nserver \{.*", "", texts["rankd.conf"], flags=re.DOTALL)
    for name, text in texts.items():
        (folder / name).write_text(text)
    main = folder / "nginx.conf"
    main.write_text(
        _MAIN.format(
            folder=folder,
            user="user root;" if os.geteuid() == 0 else "",
            more=f"include {folder}/tls.conf;" if tls else "",
        )
    )
    return main


def judged(main: Path) -> str:
    """Output of `nginx -t`; fails if the configuration is invalid."""
    command = [program("nginx"), "-t", "-c", str(main), "-e", "stderr"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


@contextmanager
def running(main: Path, port: int) -> Iterator[Nginx]:
    """nginx with this configuration; stopped at the end."""
    folder = main.parent
    process = subprocess.Popen(
        [program("nginx"), "-c", str(main), "-e", str(folder / "error.log")],
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield Nginx(f"http://127.0.0.1:{port}", folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None, "nginx ended"
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            return


def _line(text: str) -> Line:
    match = re.search(r'" (\d{3}) \d+ [\d.]+ "([^"]*)" "[^"]*" (\S+)$', text)
    assert match, text
    servers = [server for server in re.split(r"[,\s]+", match[2]) if server.startswith("127.")]
    return Line(int(match[1]), servers, match[3])
