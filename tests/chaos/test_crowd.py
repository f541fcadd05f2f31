"""The clients of the chaos test notice servers that lose requests, or never answer."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

import crowd
from corpus import Wanted
from crowd import Crowd, wanted
from judge import FAULTS, HANG, LOST, RIGHT, UNDOCUMENTED, WRONG
from ledger import Ledger
from lines import Line
from tongues import OPENAI, TONGUES, Tongue

ANSWER = b"HTTP/1.1 200 OK\r\nx-request-id: openai-1\r\ncontent-length: 65\r\n\r\n"
BODY = b'{"results":[{"index":0,"relevance_score":1.25,"document":null}]} '


def ending(said: bytes | None) -> str:
    """What a client makes of a server that says that and leaves, or says nothing and stays."""
    ledger = Ledger()
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        if said is None:
            with suppress(ConnectionError):
                await reader.read()
        else:
            writer.write(said)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        served.set()

    async def play() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        one = Crowd(f"http://127.0.0.1:{port}", {(0, 0): 1.25}, ledger, "")
        async with server, Line(one.url) as line:
            await one._ask(line, OPENAI, Wanted(((0, 0),), logits=True), "key", "openai")
            line.drop()
            await served.wait()

    asyncio.run(play())
    [(_, found)] = ledger.endings
    return found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (ANSWER + BODY, RIGHT),
        (ANSWER + BODY.replace(b"1.25", b"1.52"), WRONG),
        (ANSWER.replace(b"openai-1", b"openai-2") + BODY, UNDOCUMENTED),
        (ANSWER + BODY[:-1], LOST),
        (ANSWER[:30], LOST),
        (b"", LOST),
    ],
)
def test_an_answer_counts_when_it_is_whole_and_ones_own(said: bytes, expected: str) -> None:
    assert ending(said) == expected


def test_a_server_that_says_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PATIENCE", 0.2)

    assert ending(None) == HANG
    assert HANG in FAULTS


@pytest.mark.parametrize("tongue", TONGUES, ids=lambda tongue: tongue.name)
def test_the_same_dice_ask_the_same(tongue: Tongue) -> None:
    def asks() -> list[Wanted]:
        dice = random.Random("seed")
        return [wanted(dice, tongue) for _ in range(30)]

    assert asks() == asks()
    assert len({ask.pairs for ask in asks()}) > 20
