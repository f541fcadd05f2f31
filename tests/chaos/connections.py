"""HTTP over a plain socket, so that clients can break every rule of the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# For /metrics, which needs a key; it has no rate limit.
OPERATOR_KEY = "the-operators"


class HttpAnswer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(Exception):
    """The connection ended before the answer was complete."""


def message(
    path: str, body: Any, key: str | None, name: str, *extra: str, host: str | None = "chaos"
) -> bytes:
    """The bytes of a POST.

    Args:
        body: bytes are sent unchanged, everything else as JSON.
        name: the request id, which the answer must repeat.
        extra: header lines.
        host: None sends no `Host`.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"x-request-id: {name}", *extra]
    if host is not None:
        lines.append(f"host: {host}")
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if not any(line.startswith(("content-length", "transfer-encoding")) for line in extra):
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


class Connection:
    """A connection to the server; opened again after the server closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Abort the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def send(self, data: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        _, writer = self._streams
        if data:
            writer.write(data)
            await writer.drain()

    def half_close(self) -> None:
        """Send nothing more on this connection."""
        assert self._streams is not None
        self._streams[1].write_eof()

    async def read_some(self, size: int) -> bytes:
        assert self._streams is not None
        return await self._streams[0].readexactly(size)

    async def answer(self) -> HttpAnswer:
        """The next answer, after interim ones.

        Raises:
            Lost: there is no answer, or only a part of one.
        """
        assert self._streams is not None
        reader, _ = self._streams
        try:
            head = "HTTP/1.1 100"
            while head.startswith("HTTP/1.1 100"):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.rstrip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (row.partition(":") for row in rest)
            }
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError, KeyError) as problem:
            self.drop()
            raise Lost(repr(problem)) from None
        if headers.get("connection") == "close":
            self.drop()
        return HttpAnswer(int(first.split()[1]), headers, body)

    async def ask(self, data: bytes) -> HttpAnswer:
        try:
            await self.send(data)
        except OSError:
            # The server may have answered without reading the whole request.
            if self._streams is None:
                raise Lost("the server does not take connections") from None
        return await self.answer()


async def get(url: str, path: str) -> HttpAnswer:
    head = f"GET {path} HTTP/1.1\r\nhost: chaos\r\nauthorization: Bearer {OPERATOR_KEY}\r\n"
    async with Connection(url) as connection:
        return await connection.ask(f"{head}\r\n".encode())
