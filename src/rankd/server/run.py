"""One process on one port: from settings to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from rankd import dialects
from rankd.config.settings import Settings
from rankd.engines.base import Engine
from rankd.errors import ENGINE_DIED, EngineDown, EngineRestarting, PortTaken
from rankd.ranking.service import Drain
from rankd.server import banner
from rankd.server.app import open_app
from rankd.server.http11 import SPARE, ConnectionLimits, Http11
from rankd.server.progress import show_progress
from rankd.server.systemd import READY, STOPPING, WATCHDOG, notify
from rankd.server.tls import Handshakes, tls_options

_log = logging.getLogger("rankd")

# Seconds between two looks at the engine, and of 503s before the server ends: probes
# and clients learn why instead of finding a closed port.
_LOOK_EVERY = 1.0
_LAST_WORDS = 2.0

# Seconds between two looks at what is left to answer.
_DRAIN_LOOK_EVERY = 0.05

# Open connections: at least so many, and so many more than requests that may wait.
MIN_CONNECTIONS = 900
SPARE_CONNECTIONS = 100


async def serve(settings: Settings) -> int:
    """Serve until a signal; answers what was admitted before it returns.

    Returns:
        The exit status: 0, or 6 when the engine died, or died too often to be started again.

    Raises:
        SetupError: the port is taken, or as `open_app`.
    """
    # The port first: loading a model for minutes only to find it taken is cruel.
    with contextlib.closing(_bind(settings.host, settings.port)) as listener:
        try:
            return await _serve(settings, listener)
        except asyncio.CancelledError:
            return 0  # Asked to stop before anything was served.


def _max_connections(settings: Settings) -> int:
    """More than requests may wait: health checks still connect, and a 429 keeps its connection."""
    return max(MIN_CONNECTIONS, settings.max_waiting_requests + SPARE_CONNECTIONS)


async def _serve(settings: Settings, listener: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    if loading := asyncio.current_task():
        loop.add_signal_handler(signal.SIGTERM, loading.cancel)
    notify(f"STATUS=loading {settings.model}")
    limits = ConnectionLimits(
        settings.read_timeout_seconds, _max_connections(settings), dialects.error_response
    )
    async with show_progress(open_app(settings)) as app:
        server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=Http11.within(limits),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                timeout_keep_alive=75,
                **tls_options(settings),
            ),
            app.state.service.drain,
            limits=limits,
            drain_seconds=settings.drain_seconds,
            drain_delay=settings.drain_delay_seconds,
        )
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, server.ask_to_stop)
        server.announce = partial(_announce, app, settings)
        _listen(listener)
        async with _watching(app.state.service.ranker.engine, server) as watch:
            await server.serve(sockets=[listener])
    return ENGINE_DIED if watch.died else 0


@dataclass
class _EngineWatch:
    """Whether the engine died for good before anyone asked the server to stop."""

    died: bool = False

    async def until_it_dies(self, engine: Engine, server: _Server) -> None:
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                with contextlib.suppress(EngineRestarting):
                    await engine.check()
                # An engine that is away is started again by us, and is no reason to kill us.
                notify(WATCHDOG)
        except EngineDown as problem:
            if server.should_exit:
                return
            self.died = True
            _log.error("stopping: %s", problem.message)
        await asyncio.sleep(_LAST_WORDS)
        server.ask_to_stop()


@contextlib.asynccontextmanager
async def _watching(engine: Engine, server: _Server) -> AsyncIterator[_EngineWatch]:
    watch = _EngineWatch()
    watching = asyncio.create_task(watch.until_it_dies(engine, server))
    try:
        yield watch
    finally:
        watching.cancel()
        await asyncio.wait([watching])


class _Server(uvicorn.Server):
    """uvicorn, but signals and the drain are ours.

    uvicorn raises the signal again once it has drained, which would end the
    process before the engine is closed, and with a status that says "killed".
    It also closes the port and all idle connections before it drains, so that
    probes and clients meet a closed door and not the reason.

    Attributes:
        announce: is told of each listener, by its host and port, when it is served.
    """

    announce: Callable[[str, int], None]

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        *,
        limits: ConnectionLimits,
        drain_seconds: int,
        drain_delay: int,
    ) -> None:
        super().__init__(config)
        self._limits = limits
        self._handshakes: list[Handshakes] = []
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._drain_delay = drain_delay
        self._asked = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._handshakes = [self._shake(one, self.config.ssl) for one in sockets or []]
        for listener in sockets or []:
            self.announce(*listener.getsockname()[:2])

    def _shake(self, listener: socket.socket, context: ssl.SSLContext) -> Handshakes:
        connections, most = self.server_state.connections, self._limits.connections + SPARE

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        return Handshakes(
            listener,
            context,
            open=protocol,
            seconds=self._limits.read_seconds,
            has_room=lambda running: running + len(connections) < most,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def ask_to_stop(self) -> None:
        """The first time drain, the second time leave."""
        if self.should_exit:
            self.force_exit = True
            self._give_up()
            return
        self._asked = time.monotonic()
        self._drain.begin()
        self.should_exit = True
        notify(STOPPING, f"STATUS=stopping, requests still to answer: {self._drain.running}")
        _log.info(
            "stopping; requests still to answer: %d, within %d seconds",
            self._drain.running,
            self._drain_seconds,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port once what was admitted is answered; until then refuse, and say why."""
        while self._has_to_stay():  # noqa: ASYNC110  (a signal, the clock or an answer ends it)
            await asyncio.sleep(_DRAIN_LOOK_EVERY)
        if self._drain.running:
            self._give_up()
        # What is left are answers on their way out, and bodies on their way in.
        left = self._drain_seconds - self._waited()
        self.config.timeout_graceful_shutdown = max(1, math.ceil(left))
        for handshakes in self._handshakes:
            handshakes.close()
        await super().shutdown(sockets)

    def _has_to_stay(self) -> bool:
        if self.force_exit:
            return False
        waited = self._waited()
        return waited < self._drain_delay or (
            self._drain.running > 0 and waited < self._drain_seconds
        )

    def _waited(self) -> float:
        """Seconds since the server was asked to stop."""
        return time.monotonic() - self._asked

    def _give_up(self) -> None:
        """Whoever still waits is told that there will be no answer."""
        for task in self.server_state.tasks:
            task.cancel()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as problem:
        raise PortTaken(f"cannot listen on --host {host}: {problem}") from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as problem:
        listener.close()
        raise _taken(host, port, problem) from None
    return listener


def _listen(listener: socket.socket) -> None:
    """From here on connections are taken; two that are not yet listening may share a port."""
    try:
        listener.listen(2048)
    except OSError as problem:
        host, port = listener.getsockname()[:2]
        raise _taken(host, port, problem) from None


def _taken(host: str, port: int, problem: OSError) -> PortTaken:
    if problem.errno == errno.EADDRINUSE:
        return PortTaken(f"port {port} on {host} is in use; choose another with --port")
    return PortTaken(f"cannot listen on {host}:{port}: {problem.strerror}")


def _announce(app: FastAPI, settings: Settings, host: str, port: int) -> None:
    """On the screen of a person, or else in one line of the log; and to systemd."""
    name = app.state.service.name
    if not banner.show(app, settings, host, port):
        url = banner.address(settings, host, port)
        _log.info("%s is ready at %s (try /docs, stop with Ctrl-C)", name, url)
    notify(READY, f"STATUS=serving {name}")
