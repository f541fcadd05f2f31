"""Runs the server: opens the port, starts uvicorn, handles signals, drains and exits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from rankd import dialects
from rankd.config.settings import Settings
from rankd.engines.base import Engine
from rankd.errors import ENGINE_DIED, EngineDown, EngineRestarting, PortTaken
from rankd.server import banner
from rankd.server.app import open_app
from rankd.server.http11 import SPARE, ConnectionLimits, Http11
from rankd.server.progress import show_progress
from rankd.server.systemd import READY, STOPPING, WATCHDOG, notify
from rankd.server.tls import Handshakes, tls_options
from rankd.telemetry import logs, metrics

_log = logging.getLogger("rankd")

# Seconds between two checks of the engine.
_ENGINE_CHECK_INTERVAL = 1.0

# Seconds of 503 responses before the server exits without an engine, so that health checks
# and clients get the reason.
_EXIT_DELAY = 2.0

# Seconds between two checks whether the drain is complete.
_DRAIN_CHECK_INTERVAL = 0.05

# Open connections: at least so many, and so many more than requests that may wait.
MIN_CONNECTIONS = 900
SPARE_CONNECTIONS = 100


async def serve(settings: Settings) -> int:
    """Serve until a signal arrives, then answer the admitted requests and return.

    Returns:
        The exit status: 0, or 6 when the engine died and is not restarted.

    Raises:
        SetupError: the port is in use, or as `open_app`.
    """
    # Bind first: loading a model can take minutes, and the port may be in use.
    with contextlib.closing(_bind(settings.host, settings.port)) as listener:
        try:
            return await _serve(settings, listener)
        except asyncio.CancelledError:
            return 0  # Stopped while the model was loading.


def _max_connections(settings: Settings) -> int:
    """More than requests may wait: health checks still connect, and a 429 keeps its connection."""
    return max(MIN_CONNECTIONS, settings.max_waiting_requests + SPARE_CONNECTIONS)


async def _serve(settings: Settings, listener: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    if startup := asyncio.current_task():
        for signum in (signal.SIGTERM, *_hangup()):
            loop.add_signal_handler(signum, startup.cancel)
    notify(f"STATUS=loading {settings.model}")
    async with show_progress(open_app(settings)) as app:
        # What lives as long as the server is not searched for garbage again and again: with a
        # vocabulary in memory, each full collection stopped all requests for some 50 ms.
        gc.collect()
        gc.freeze()
        limits = ConnectionLimits(
            read_seconds=settings.read_timeout_seconds,
            connections=_max_connections(settings),
            render=dialects.error_response,
            budget=app.state.budget,
            drain=app.state.service.drain,
        )
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
                proxy_headers=False,
                timeout_keep_alive=75,
                **tls_options(settings),
            ),
            limits,
            drain_seconds=settings.drain_seconds,
            drain_delay=settings.drain_delay_seconds,
        )
        for signum in (signal.SIGINT, signal.SIGTERM, *_hangup()):
            loop.add_signal_handler(signum, server.ask_to_stop)
        server.announce = partial(_announce, app, settings)
        _listen(listener)
        async with _watch_engine(app.state.service.ranker.engine, server) as watch:
            await server.serve(sockets=[listener])
    return ENGINE_DIED if watch.died else 0


def _hangup() -> tuple[signal.Signals, ...]:
    """The signal of a closed terminal; none under `nohup`, which ignores it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return () if ignored else (signal.SIGHUP,)


@dataclass
class _EngineWatch:
    """Stops the server when the engine is dead and is not restarted.

    Attributes:
        died: the engine died while the server was not stopping.
    """

    died: bool = False

    async def run(self, engine: Engine, server: _Server) -> None:
        try:
            while True:
                await asyncio.sleep(_ENGINE_CHECK_INTERVAL)
                metrics.LOG_LINES_DROPPED.inc(logs.write_waiting())
                with contextlib.suppress(EngineRestarting):
                    await engine.check()
                # Also during a restart of the engine: systemd must not restart the server.
                notify(WATCHDOG)
        except EngineDown as problem:
            if server.should_exit:
                return
            self.died = True
            _log.error("stopping: %s", problem.message)
        await asyncio.sleep(_EXIT_DELAY)
        server.ask_to_stop()


@contextlib.asynccontextmanager
async def _watch_engine(engine: Engine, server: _Server) -> AsyncIterator[_EngineWatch]:
    watch = _EngineWatch()
    task = asyncio.create_task(watch.run(engine, server))
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Server(uvicorn.Server):
    """uvicorn's server with other signal handling and another drain.

    uvicorn raises the signal again after its drain, which would kill the process before the
    engine is closed. It also closes the port and all idle connections before the drain, so
    that health checks and clients get a refused connection instead of a 503.

    Attributes:
        announce: called with the host and port of each listener when it accepts connections.
    """

    announce: Callable[[str, int], None]

    def __init__(
        self,
        config: uvicorn.Config,
        limits: ConnectionLimits,
        *,
        drain_seconds: int,
        drain_delay: int,
    ) -> None:
        super().__init__(config)
        self._limits = limits
        self._handshakes: list[Handshakes] = []
        self._drain = limits.drain
        self._drain_seconds = drain_seconds
        self._drain_delay = drain_delay
        self._stopping_since = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._handshakes = [
                self._open_tls(listener, self.config.ssl) for listener in sockets or []
            ]
        for listener in sockets or []:
            self.announce(*listener.getsockname()[:2])

    def _open_tls(self, listener: socket.socket, context: ssl.SSLContext) -> Handshakes:
        connections = self.server_state.connections
        limit = self._limits.connections + SPARE

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        return Handshakes(
            listener,
            context,
            protocol=protocol,
            seconds=self._limits.read_seconds,
            may_accept=lambda running: running + len(connections) < limit,
            make_room=self._limits.idle.close_oldest,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def ask_to_stop(self) -> None:
        """Begin the drain; a second call ends the server without waiting for requests."""
        if self.should_exit:
            self.force_exit = True
            self._cancel_requests()
            return
        self._stopping_since = time.monotonic()
        self._drain.begin()
        for connection in self.server_state.connections:
            cast("Http11", connection).end_keep_alive()
        self.should_exit = True
        notify(STOPPING, f"STATUS=stopping, requests in flight: {self._drain.running}")
        _log.info(
            "stopping; requests in flight: %d, time limit: %d seconds",
            self._drain.running,
            self._drain_seconds,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port when all admitted requests are answered; meanwhile refuse new ones."""
        while self._is_draining():  # noqa: ASYNC110  (a signal, the clock or a response ends it)
            await asyncio.sleep(_DRAIN_CHECK_INTERVAL)
        if self._drain.running:
            self._cancel_requests()
        # Now uvicorn waits for responses that are being sent and bodies that are arriving.
        left = self._drain_seconds - self._waited()
        self.config.timeout_graceful_shutdown = max(1, math.ceil(left))
        for handshakes in self._handshakes:
            handshakes.close()
        await super().shutdown(sockets)

    def _is_draining(self) -> bool:
        if self.force_exit:
            return False
        waited = self._waited()
        return waited < self._drain_delay or (
            self._drain.running > 0 and waited < self._drain_seconds
        )

    def _waited(self) -> float:
        """Seconds since the server was asked to stop."""
        return time.monotonic() - self._stopping_since

    def _cancel_requests(self) -> None:
        """Cancel the requests in flight; their clients get a 503."""
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
        raise _port_error(host, port, problem) from None
    return listener


def _listen(listener: socket.socket) -> None:
    """Accept connections. Fails if another process bound the same port and listened first."""
    try:
        listener.listen(2048)
    except OSError as problem:
        host, port = listener.getsockname()[:2]
        raise _port_error(host, port, problem) from None


def _port_error(host: str, port: int, problem: OSError) -> PortTaken:
    if problem.errno == errno.EADDRINUSE:
        # make sets MAKELEVEL for what it runs, such as `make serve`.
        way = 'ARGS="… --port 9000"' if "MAKELEVEL" in os.environ else "--port"
        return PortTaken(
            f"port {port} on {host} is in use: stop what listens there, such as another rankd, or "
            f"choose another port with {way}"
        )
    return PortTaken(f"cannot listen on {host}:{port}: {problem.strerror}")


def _announce(app: FastAPI, settings: Settings, host: str, port: int) -> None:
    """Report readiness: a summary on a terminal, otherwise a log line; and to systemd."""
    name = app.state.service.name
    if not banner.show(app, settings, host, port):
        url = banner.address(settings, host, port)
        _log.info("%s is ready at %s (try /docs, stop with Ctrl-C)", name, url)
    notify(READY, f"STATUS=serving {name}")
