"""HTTPS: options for uvicorn, checks of the certificate files, and limits on handshakes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rankd.config.settings import Settings
from rankd.errors import BadSettings

_log = logging.getLogger("rankd")


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's TLS options; empty without a certificate.

    With --ssl-ca-certs clients must present a certificate, which uvicorn does not require
    by default.
    """
    if settings.ssl_certfile is None:
        return {}
    options: dict[str, Any] = {
        "ssl_certfile": str(settings.ssl_certfile),
        "ssl_keyfile": None if settings.ssl_keyfile is None else str(settings.ssl_keyfile),
        "ssl_keyfile_password": settings.ssl_keyfile_password,
    }
    if settings.ssl_ca_certs is not None:
        options |= {
            "ssl_ca_certs": str(settings.ssl_ca_certs),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    return options


def check_tls(settings: Settings) -> None:
    """Check the certificate files, before the model is loaded.

    Raises:
        BadSettings: a file is missing or cannot be used; the message names it.
    """
    if settings.ssl_certfile is None:
        for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(settings, name) is not None:
                raise BadSettings(
                    f"{name} has no effect without ssl_certfile; set ssl_certfile too"
                )
        return
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        file = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()
        except OSError as problem:
            raise BadSettings(f"cannot read {name} {file}: {problem.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With None, OpenSSL would prompt for a password on the terminal.
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password or ""
        )
    except (ssl.SSLError, ValueError) as problem:
        raise BadSettings(
            f"ssl_certfile {settings.ssl_certfile} and its key cannot be used: {problem}"
        ) from None
    if settings.ssl_ca_certs is not None:
        try:
            context.load_verify_locations(settings.ssl_ca_certs)
        except ssl.SSLError as problem:
            raise BadSettings(
                f"ssl_ca_certs {settings.ssl_ca_certs} cannot be used: {problem}"
            ) from None


# Connections accepted in one callback, so that open connections are served in between.
_MAX_ACCEPTS = 100

# Seconds until the next attempt when the process has no file descriptors left.
_RETRY_SECONDS = 1.0


class Handshakes:
    """Accepts connections and performs TLS handshakes, within the connection limits.

    uvicorn's listener allows a minute for each handshake and does not count it as a
    connection, so silent clients could use up all file descriptors.

    Args:
        protocol: creates the protocol of a connection.
        seconds: for one handshake; then the connection is closed.
        may_accept: whether another connection may be opened, given the running handshakes.
        make_room: closes an idle connection; returns whether there was one.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        *,
        protocol: Callable[[], asyncio.Protocol],
        seconds: float,
        may_accept: Callable[[int], bool],
        make_room: Callable[[], bool],
    ) -> None:
        self._listener = listener
        self._context = context
        self._protocol = protocol
        self._seconds = seconds
        self._may_accept = may_accept
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], None] = {}  # Oldest first.
        self._retry: asyncio.TimerHandle | None = None
        self._logged_plain_http = False
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop accepting, and cancel the handshakes that are not complete."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        for task in self._running:
            task.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # No file descriptors left; the event loop would retry in a busy loop.
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(_RETRY_SECONDS, self._listen)
                return
            if not self._may_accept(len(self._running)) and not self._has_made_room():
                connection.close()
                continue
            task = self._loop.create_task(self._shake_hands(connection))
            self._running[task] = None
            task.add_done_callback(self._forget)

    def _has_made_room(self) -> bool:
        """Close what waits for a client: an idle connection, else the oldest handshake."""
        if self._make_room():
            return True
        if oldest := next(iter(self._running), None):
            self._forget(oldest)
            oldest.cancel()
        return oldest is not None

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    @contextmanager
    def _plain_http_logged(self) -> Iterator[None]:
        """Log the first request in plain HTTP: its client sees an empty reply, without a reason."""
        try:
            yield
        except ssl.SSLError as problem:
            if problem.reason == "HTTP_REQUEST" and not self._logged_plain_http:
                self._logged_plain_http = True
                _log.warning("a client sent plain HTTP to this HTTPS port: its URL needs https://")
            raise

    async def _shake_hands(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            # The client disconnected, sent plain HTTP or has no certificate.
            with suppress(OSError), self._plain_http_logged():
                await self._loop.connect_accepted_socket(
                    self._protocol,
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=self._seconds,
                )
                return
        except BaseException:
            connection.close()
            raise
        connection.close()
