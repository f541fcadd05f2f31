"""The chaos test's clients recognize servers that lose requests or never answer."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

import workload
from api_formats import API_FORMATS, OPENAI, ApiFormat
from connections import Connection
from corpus import ChaosRequest
from judge import FAULTS, HANG, LOST, RIGHT, UNDOCUMENTED, WRONG
from ledger import Ledger
from workload import Workload, random_request

ANSWER = b"HTTP/1.1 200 OK\r\nx-request-id: openai-1\r\ncontent-length: 65\r\n\r\n"
BODY = b'{"results":[{"index":0,"relevance_score":1.25,"document":null}]} '


async def outcome(reply: bytes | None) -> str:
    """The outcome of a request to a server that sends `reply` and closes; None: never answers."""
    ledger = Ledger()
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        if reply is None:
            with suppress(ConnectionError):
                await reader.read()
        else:
            writer.write(reply)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = Workload(f"http://127.0.0.1:{port}", {(0, 0): 1.25}, ledger, "")
    async with server, Connection(clients.url) as connection:
        await clients._send(
            connection, OPENAI, ChaosRequest(((0, 0),), logits=True), "key", "openai"
        )
        connection.drop()
        await served.wait()
    [(_, result)] = ledger.outcomes
    return result


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (ANSWER + BODY, RIGHT),
        (ANSWER + BODY.replace(b"1.25", b"1.52"), WRONG),
        (ANSWER.replace(b"openai-1", b"openai-2") + BODY, UNDOCUMENTED),
        (ANSWER + BODY[:-1], LOST),
        (ANSWER[:30], LOST),
        (b"", LOST),
    ],
)
@pytest.mark.anyio
async def test_only_a_whole_answer_with_the_requests_id_counts(reply: bytes, expected: str) -> None:
    assert await outcome(reply) == expected


@pytest.mark.anyio
async def test_a_server_that_never_answers_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "TIMEOUT", 0.2)

    assert await outcome(None) == HANG
    assert HANG in FAULTS


@pytest.mark.parametrize("api", API_FORMATS, ids=lambda api: api.name)
def test_the_same_seed_gives_the_same_requests(api: ApiFormat) -> None:
    def requests() -> list[ChaosRequest]:
        rng = random.Random("seed")
        return [random_request(rng, api) for _ in range(30)]

    assert requests() == requests()
    assert len({request.pairs for request in requests()}) > 20
