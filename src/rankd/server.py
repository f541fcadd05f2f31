"""One process on one port: from settings to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn

from rankd.app import open_app
from rankd.errors import PortTaken
from rankd.settings import Settings

_log = logging.getLogger("rankd")


async def serve(settings: Settings) -> int:
    """Serve until a signal; answers what was admitted before it returns.

    Raises:
        SetupError: the port is taken, or as `open_app`.
    """
    # The port first: loading a model for minutes only to find it taken is cruel.
    with contextlib.closing(_bind(settings.host, settings.port)) as listener:
        async with open_app(settings) as app:
            server = _Server(
                uvicorn.Config(
                    app,
                    loop="none",
                    http="httptools",
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    log_level="warning",
                    server_header=False,
                    timeout_keep_alive=75,
                    timeout_graceful_shutdown=settings.drain_seconds,
                )
            )
            for signum in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(signum, server.ask_to_stop)
            server.name = app.state.desk.name
            await server.serve(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """uvicorn, but signals are ours.

    uvicorn raises the signal again once it has drained, which would end the
    process before the engine is closed, and with a status that says "killed".

    Attributes:
        name: the served model, for the line that says where it listens.
    """

    name = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            _announce(self.name, listener)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def ask_to_stop(self) -> None:
        """The first time drain, the second time leave."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as problem:
        raise PortTaken(f"cannot listen on --host {host}: {problem.strerror}") from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} on {host} is in use; choose another with --port"
            ) from None
        raise PortTaken(f"cannot listen on {host}:{port}: {problem.strerror}") from None
    return listener


def _announce(name: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _log.info("%s is ready at http://%s:%d (try /docs, stop with Ctrl-C)", name, shown, port)
