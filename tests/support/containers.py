"""Containers of Linux namespaces: an image's command as `docker run` would start it.

Without a container engine: unshare, chroot and setpriv do what one does with users, read-only file
systems, volumes, capabilities and pid 1. Limits, seccomp profiles and devices are left out.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.servers import family

WAIT_SECONDS = 900
_NEW_NETWORK = 0x40000000

# Runs as root in new namespaces. The loopback device of a new network is down.
_SCRIPT = r"""
set -eu
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t sysfs -o ro sysfs "$ROOT/sys"
mount -t tmpfs -o mode=755 dev "$ROOT/dev"
mkdir "$ROOT/dev/shm"
mount -t tmpfs -o mode=1777 shm "$ROOT/dev/shm"
for device in null zero full random urandom; do
  touch "$ROOT/dev/$device"
  mount --bind "/dev/$device" "$ROOT/dev/$device"
done
ln -s /proc/self/fd "$ROOT/dev/fd"
while read -r outside inside options; do
  [ -n "$outside" ] || continue
  if [ "$outside" = tmpfs ]; then
    mkdir -p "$ROOT$inside"
    mount -t tmpfs -o mode=1777 tmpfs "$ROOT$inside"
    continue
  fi
  if [ -d "$outside" ]; then mkdir -p "$ROOT$inside"; else
    mkdir -p "$(dirname "$ROOT$inside")"; touch "$ROOT$inside"
  fi
  mount --bind "$outside" "$ROOT$inside"
  [ "$options" != ro ] || mount -o remount,bind,ro "$ROOT$inside"
done <<<"$MOUNTS"
[ -z "$READ_ONLY" ] || mount -o remount,bind,ro "$ROOT"
[ -z "$OWN_NETWORK" ] || "$PYTHON" -c "$LOOPBACK_UP"
exec /usr/sbin/chroot "$ROOT" "$@"
"""
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""


@dataclass(frozen=True)
class Image:
    """A file system and what the image states of its command.

    Attributes:
        root: where the file system is mounted.
        config: `Entrypoint`, `Cmd`, `Env`, `User`, `WorkingDir`, `Labels`, … of the image.
        health: the command of HEALTHCHECK.
    """

    root: Path
    config: Mapping[str, Any]
    health: Sequence[str]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (one.partition("=") for one in self.config["Env"])
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Options:
    """Flags of `docker run`.

    Attributes:
        user: uid or `uid:gid`; None: the image's.
        volumes: `outside:inside[:ro]`.
        drop_capabilities: all of them, and no new privileges.
        own_network: False shares this machine's.
    """

    user: str | None = None
    volumes: Sequence[str] = ()
    tmpfs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    read_only: bool = False
    drop_capabilities: bool = True
    own_network: bool = True


_DEFAULTS = Options()

# README's.
REQUEST = {
    "query": "What is the capital of China?",
    "documents": [
        "Gravity is a force that attracts two bodies towards each other.",
        "The capital of China is Beijing.",
    ],
}


class Container:
    """A started container; its output goes to a file."""

    def __init__(self, image: Image, arguments: Sequence[str], options: Options) -> None:
        self._image, self._options = image, options
        self._log = tempfile.NamedTemporaryFile(prefix="container-")  # noqa: SIM115
        command = [*_entrypoint(image, options), *(arguments or image.config.get("Cmd") or ())]
        self._process = subprocess.Popen(
            [*_unshare(options), "bash", "-c", _SCRIPT, "bash", *_inside(image, options, command)],
            env=_for_script(image, options),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def output(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the container's pid 1, as this machine counts."""
        return family(self._process.pid)[1]

    def ended(self) -> int:
        """Wait for its end; gives the exit status."""
        return self._process.wait(timeout=WAIT_SECONDS)

    def stop(self) -> int:
        """SIGTERM to pid 1, as `docker stop`; gives the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """With pid 1 of the container all its processes end. (The signal that --kill-child asks
        for is lost when the user changes.)"""
        if self._process.poll() is None:
            for pid in family(self._process.pid)[1:2]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._log.close()

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Like `docker exec`."""
        enter = ["nsenter", "-t", str(self.pid), "--mount", "--pid", "--net", "--root"]
        return subprocess.run(
            [*enter, *_inside(self._image, self._options, command)],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def request(self, method: str, path: str, port: int = 8000, **options: Any) -> httpx.Response:
        """One HTTP request to its loopback address."""

        def send() -> httpx.Response:
            url = f"http://127.0.0.1:{port}{path}"
            return httpx.request(method, url, timeout=WAIT_SECONDS, trust_env=False, **options)

        return _in_network_of(self.pid, send)

    def ranked(self, **headers: str) -> list[int]:
        """The order of two documents, of which the second answers the query."""
        reply = self.request("POST", "/v1/rerank", json=REQUEST, headers=headers)
        assert reply.status_code == 200, reply.text
        return [result["index"] for result in reply.json()["results"]]

    def wait_until_ready(self, port: int = 8000) -> None:
        """Until /readyz is 200, as a startup probe waits."""
        limit = time.monotonic() + WAIT_SECONDS
        while not self._is_ready(port):
            assert self._process.poll() is None, f"it ended: {self.output}"
            assert time.monotonic() < limit, f"it does not get ready: {self.output}"
            time.sleep(0.2)

    def _is_ready(self, port: int) -> bool:
        try:
            return self.request("GET", "/readyz", port).status_code == 200
        except (httpx.TransportError, IndexError, FileNotFoundError):
            return False  # Not yet listening, or not yet pid 1.


@contextmanager
def running(image: Image, *arguments: str, options: Options = _DEFAULTS) -> Iterator[Container]:
    container = Container(image, arguments, options)
    try:
        yield container
    finally:
        container.kill()


def output(image: Image, *arguments: str, options: Options = _DEFAULTS) -> tuple[int, str]:
    """Run a container to its end; gives exit status and output."""
    with running(image, *arguments, options=options) as container:
        return container.ended(), container.output


def _unshare(options: Options) -> list[str]:
    spaces = ["--mount", "--pid", "--ipc", "--uts", "--fork"]
    return ["unshare", *spaces, *(["--net"] if options.own_network else [])]


def _entrypoint(image: Image, options: Options) -> Sequence[str]:
    if options.entrypoint is not None:
        return options.entrypoint
    found: Sequence[str] = image.config.get("Entrypoint") or ()
    return found


def _inside(image: Image, options: Options, command: Sequence[str]) -> list[str]:
    """The command behind `chroot ROOT`: as a user, with the image's variables and folder."""
    uid, _, gid = (options.user or image.config.get("User") or "0").partition(":")
    rights = ["--reuid", uid, "--regid", gid or _group(image, uid), "--clear-groups"]
    if options.drop_capabilities:
        rights += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    given = {**image.environment, "HOSTNAME": "container", **options.environment}
    variables = [f"{name}={value}" for name, value in given.items()]
    folder = f"--chdir={image.config.get('WorkingDir') or '/'}"
    return ["/usr/bin/setpriv", *rights, "/usr/bin/env", "-i", folder, *variables, *command]


def _group(image: Image, uid: str) -> str:
    """The user's own group, or root's for a user that the image does not know."""
    users = (image.root / "etc/passwd").read_text()
    found = re.search(rf"^[^:]+:[^:]*:{uid}:(\d+):", users, re.MULTILINE)
    return found[1] if found else "0"


def _for_script(image: Image, options: Options) -> dict[str, str]:
    mounts = [" ".join([*one.split(":"), "-"][:3]) for one in options.volumes]
    mounts += [f"tmpfs {folder} -" for folder in options.tmpfs]
    mounts += [f"{file} {file} ro" for file in ("/etc/resolv.conf", "/etc/hosts")]
    return {
        "PATH": os.environ["PATH"],
        "ROOT": str(image.root),
        "MOUNTS": "\n".join(mounts),
        "READ_ONLY": "1" if options.read_only else "",
        "OWN_NETWORK": "1" if options.own_network else "",
        "PYTHON": sys.executable,
        "LOOPBACK_UP": _LOOPBACK_UP,
    }


def _in_network_of(pid: int, call: Callable[[], httpx.Response]) -> httpx.Response:
    """In a thread of its own, because the network of a thread cannot be given back."""

    def entered() -> httpx.Response:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{pid}/ns/net") as network:
            if libc.setns(network.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        return call()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(entered).result()
