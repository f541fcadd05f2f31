"""Connections of clients that may do anything: HTTP by hand over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# Metrics are not for everyone; no limit counts them.
OPERATOR_KEY = "the-operators"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(Exception):
    """The connection ended before the answer did."""


def message(path: str, body: Any, key: str | None, name: str, *extra: str) -> bytes:
    """A POST; a body that is bytes goes as it is.

    Args:
        name: the request's, which its answer must repeat.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: chaos", f"x-request-id: {name}", *extra]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if not any(line.startswith(("content-length", "transfer-encoding")) for line in extra):
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


class Line:
    """One connection to the server, opened again when the last answer closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Leave, whatever is under way."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def send(self, data: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        _, writer = self._streams
        writer.write(data)
        await writer.drain()

    async def read_some(self, size: int) -> bytes:
        assert self._streams is not None
        return await self._streams[0].readexactly(size)

    async def answer(self) -> Answer:
        """The next answer.

        Raises:
            Lost: there is none, or half of one.
        """
        assert self._streams is not None
        reader, _ = self._streams
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.rstrip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (one.partition(":") for one in rest)
            }
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError, KeyError) as problem:
            self.drop()
            raise Lost(repr(problem)) from None
        if headers.get("connection") == "close":
            self.drop()
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        try:
            await self.send(data)
        except OSError:
            # It may have been refused before it was read to its end.
            if self._streams is None:
                raise Lost("the server does not take connections") from None
        return await self.answer()


async def get(url: str, path: str) -> Answer:
    head = f"GET {path} HTTP/1.1\r\nhost: chaos\r\nauthorization: Bearer {OPERATOR_KEY}\r\n"
    async with Line(url) as line:
        return await line.ask(f"{head}\r\n".encode())
