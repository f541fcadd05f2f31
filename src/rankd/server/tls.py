"""HTTPS: what uvicorn is told of certificates, and what is wrong with them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rankd.config.settings import Settings
from rankd.errors import BadSettings


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options; none when there is no certificate.

    Authorities in --ssl-ca-certs make a client's certificate a condition: uvicorn reads
    them, too, when it does not ask for one.
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
    """Look at the files before a model is loaded for minutes.

    Raises:
        BadSettings: one is missing or cannot be used; says which.
    """
    if settings.ssl_certfile is None:
        for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(settings, name) is not None:
                raise BadSettings(f"{name} is of no use without ssl_certfile")
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
        # Without a password OpenSSL would ask for one at the terminal.
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


# Connections taken at one look, so that those who are there get their turns.
_AT_ONCE = 100

# Seconds until the next look when there are no more files.
_LOOK_AGAIN = 1.0


class Handshakes:
    """Takes connections and agrees on their keys, within the limits of everyone else.

    uvicorn's listener gives each client a minute and does not count it, so that a
    thousand who connect and say nothing take every file there is.

    Args:
        open: makes the protocol of a connection.
        seconds: for one handshake; then it is closed.
        has_room: whether one more connection may be open beside so many handshakes.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        *,
        open: Callable[[], asyncio.Protocol],
        seconds: float,
        has_room: Callable[[int], bool],
    ) -> None:
        self._listener = listener
        self._context = context
        self._open = open
        self._seconds = seconds
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take nobody more, and leave who has not agreed."""
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()
        for task in self._running:
            task.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # No more files; asking at once would be asked again and again.
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(_LOOK_AGAIN, self._listen)
                return
            if not self._has_room(len(self._running)):
                connection.close()
                continue
            task = self._loop.create_task(self._agree(connection))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _agree(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            # Who breaks off, speaks plain HTTP or has no certificate.
            with suppress(OSError):
                await self._loop.connect_accepted_socket(
                    self._open, connection, ssl=self._context, ssl_handshake_timeout=self._seconds
                )
                return
        except BaseException:
            connection.close()
            raise
        connection.close()
