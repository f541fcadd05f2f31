"""A server that answers from a script, and both clients behind one function."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

from rankd.client import AsyncClient, Client

GOOD = (
    b'{"id":"rerank-1","object":"rerank","created":1,"model":"m","meta":{},'
    b'"results":[{"index":0,"relevance_score":0.5,"document":{"text":"d"}}],'
    b'"usage":{"prompt_tokens":7,"total_tokens":7}}'
)

CallClient = Callable[..., Any]
"""Opens a client of a URL, and returns the result of a function of the client."""


def call_sync(url: str, act: Callable[[Any], Any], **settings: Any) -> Any:
    with Client(url, **settings) as client:
        return act(client)


def call_async(url: str, act: Callable[[Any], Any], **settings: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await act(client)

    return asyncio.run(run())


def rerank(client: Any) -> Any:
    return client.rerank("q", ["d"])


@dataclass
class ScriptedReply:
    """One response of the script.

    Attributes:
        delay: seconds before it is sent.
        drops: the connection is closed without a response.
        closes: the connection is closed after the response.
        drips: sent byte by byte, ten per second.
    """

    status: int = 200
    body: bytes = GOOD
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drops: bool = False
    closes: bool = False
    drips: bool = False


@dataclass
class ScriptedServer:
    """A server that sends its script, and what it received.

    Attributes:
        connections: number of connections opened.
        requests: time and headers of each request.
    """

    script: list[ScriptedReply]
    url: str = ""
    connections: int = 0
    requests: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    @property
    def waits(self) -> list[float]:
        times = [at for at, _ in self.requests]
        return [after - before for before, after in pairwise(times)]


@contextmanager
def scripted_server(*script: ScriptedReply) -> Iterator[ScriptedServer]:
    """Serve the script on a free port; its last response is repeated."""
    scripted = ScriptedServer(list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            scripted.connections += 1
            super().setup()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            scripted.requests.append((time.monotonic(), dict(self.headers)))
            reply = scripted.script.pop(0) if len(scripted.script) > 1 else scripted.script[0]
            time.sleep(reply.delay)
            self.close_connection = reply.drops or reply.closes
            if not reply.drops:
                self._send(reply)

        do_GET = do_POST

        def _send(self, reply: ScriptedReply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            step = 1 if reply.drips else len(reply.body) or 1
            try:
                for start in range(0, len(reply.body), step):
                    self.wfile.write(reply.body[start : start + step])
                    time.sleep(0.1 if reply.drips else 0)
            except OSError:
                self.close_connection = True  # The client gave up, as it should.

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        scripted.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield scripted
        finally:
            server.shutdown()
            thread.join()
