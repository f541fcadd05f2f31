"""The workload with clients that break the rules of HTTP, or only its manners."""

from __future__ import annotations

import asyncio
import random
import select
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from api_formats import OPENAI
from connections import Connection, message
from invalid_requests import MAX_BODY_BYTES
from judge import HANG, LEFT, REFUSED
from workload import TIMEOUT, VALID, Workload, random_request

HALF_CLOSED, SLOW_WRITER = "openai, half-closed", "openai, slow writer"

# Kinds whose requests are valid, and judged as such.
ALL_VALID = (*VALID, HALF_CLOSED, SLOW_WRITER)

HOSTILE_KEYS = tuple(f"hostile-{number}" for number in range(7))

# Ten times the limit: a server that stops reading sends a reset instead of the answer.
_LARGE = b" " * (10 * MAX_BODY_BYTES)

# Pipelined requests without the engine, whose answers together exceed the kernel's buffers.
_UNREAD_REQUESTS = 30

_IDLE_SOCKETS = 200


class HostileWorkload(Workload):
    """All clients, with one of each hostile kind among them."""

    def _clients(self) -> list[Coroutine[Any, Any, None]]:
        clients = (
            self._half_closes,
            self._writes_slowly,
            self._never_reads,
            self._sends_large_bodies,
            self._comes_from_elsewhere,
            self._names_no_host,
        )
        return [
            *super()._clients(),
            *(
                client(key, random.Random(f"{self.seed}/{key}"))
                for client, key in zip(clients, HOSTILE_KEYS, strict=False)
            ),
            self._holds_idle_sockets(),
        ]

    # Valid requests.

    async def _half_closes(self, key: str, rng: random.Random) -> None:
        """Closes its side after each request, and reads."""
        while not self.stopping.is_set():
            request = random_request(rng, OPENAI)
            async with Connection(self.url) as connection:
                name = self.ledger.open(HALF_CLOSED)
                await connection.send(message(OPENAI.path, OPENAI.body(request), key, name))
                connection.half_close()
                answer = await self._answer(connection, b"", HALF_CLOSED, name)
                await self._judge(answer, OPENAI, request, HALF_CLOSED, name)
            await self._pause(rng)

    async def _writes_slowly(self, key: str, rng: random.Random) -> None:
        """Needs three seconds for each request."""
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                request = random_request(rng, OPENAI, size=5)
                name = self.ledger.open(SLOW_WRITER)
                data = message(OPENAI.path, OPENAI.body(request), key, name)
                size = len(data) // 30 + 1
                for start in range(0, len(data) - size, size):
                    await connection.send(data[start : start + size])
                    await asyncio.sleep(0.1)
                rest = data[len(range(0, len(data) - size, size)) * size :]
                answer = await self._answer(connection, rest, SLOW_WRITER, name)
                await self._judge(answer, OPENAI, request, SLOW_WRITER, name)

    # Requests that must be refused.

    async def _sends_large_bodies(self, key: str, rng: random.Random) -> None:
        """The answer must arrive although it is sent before the end of the body."""
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_LARGE), _LARGE)
        cases: tuple[tuple[bytes, str | None, tuple[str, ...], int], ...] = (
            (_LARGE, key, (), 413),
            (chunked, key, ("transfer-encoding: chunked",), 413),
            (_LARGE, None, (), 401),
            (_LARGE, key, ("content-encoding: gzip",), 415),
        )
        while not self.stopping.is_set():
            body, sent_key, head, status = rng.choice(cases)
            await self._expect_refusal("large body", body, sent_key, status, *head)
            await self._pause(rng, 2)

    async def _comes_from_elsewhere(self, key: str, rng: random.Random) -> None:
        """A browser on a page of another origin, or whose name was pointed at the server."""
        body = OPENAI.body(random_request(rng, OPENAI))
        while not self.stopping.is_set():
            page = rng.choice(("origin: https://evil.example", "sec-fetch-site: cross-site"))
            await self._expect_refusal("foreign origin", body, key, 403, page)
            await self._expect_refusal("foreign host", body, key, 403, host="evil.example")
            await self._pause(rng, 1)

    async def _names_no_host(self, key: str, rng: random.Random) -> None:
        body = OPENAI.body(random_request(rng, OPENAI))
        while not self.stopping.is_set():
            await self._expect_refusal("no host", body, key, 400, host=None)
            await self._expect_refusal("two hosts", body, key, 400, "host: other")
            await self._pause(rng, 1)

    async def _expect_refusal(
        self,
        kind: str,
        body: Any,
        key: str | None,
        status: int,
        *head: str,
        host: str | None = "chaos",
    ) -> None:
        name = self.ledger.open(kind)
        async with Connection(self.url) as connection:
            data = message(OPENAI.path, body, key, name, *head, host=host)
            self._close_refusal(
                kind, name, status, await self._answer(connection, data, kind, name)
            )

    # Connections without answers.

    async def _never_reads(self, key: str, rng: random.Random) -> None:
        """The server must close the connection, although requests stand behind the answer."""
        kind = "never reads"
        head = f"GET /openapi.json HTTP/1.1\r\nhost: chaos\r\nauthorization: Bearer {key}\r\n\r\n"
        while not self.stopping.is_set():
            name = self.ledger.open(kind)
            with self._socket() as connection:
                connection.sendall(head.encode() * _UNREAD_REQUESTS)
                closed = await self._wait_until_closed(connection)
            outcome = {True: REFUSED, False: HANG, None: LEFT}[closed]
            self.ledger.close(kind, name, outcome, "closed" if closed else "")
            await self._pause(rng, 1)

    async def _wait_until_closed(self, connection: socket.socket) -> bool | None:
        """Whether the server closes it in time; None if the workload ends before."""
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        for _ in range(int(TIMEOUT * 10)):
            await asyncio.sleep(0.1)
            if poll.poll(0):
                return True
            if self.stopping.is_set():
                return None
        return False

    async def _holds_idle_sockets(self) -> None:
        kind = "idle sockets"
        while not self.stopping.is_set():
            name = self.ledger.open(kind)
            with ExitStack() as stack:
                for _ in range(_IDLE_SOCKETS):
                    stack.enter_context(self._socket())
                await asyncio.sleep(3)
            self.ledger.close(kind, name, LEFT)

    def _socket(self) -> socket.socket:
        parts = urlsplit(self.url)
        connection = socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return connection
