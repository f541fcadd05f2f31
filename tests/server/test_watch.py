"""A server whose engine cannot be started again ends, and says so in its status."""

from __future__ import annotations

import asyncio

import pytest

from rankd.errors import EngineDown
from rankd.server import run


class Engine:
    """Answers so many looks, then is dead."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    async def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise EngineDown("the engine has died")


class Server:
    def __init__(self, *, should_exit: bool = False) -> None:
        self.should_exit = should_exit
        self.asked = False

    def ask_to_stop(self) -> None:
        self.asked = True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_ENGINE_CHECK_INTERVAL", 0.001)
    monkeypatch.setattr(run, "_EXIT_DELAY", 0.001)


def test_a_dead_engine_stops_the_server(caplog: pytest.LogCaptureFixture) -> None:
    watch, running = run._EngineWatch(), Server()

    asyncio.run(watch.run(Engine(looks=3), running))  # type: ignore[arg-type]

    assert watch.died
    assert running.asked
    assert "stopping: the engine has died" in caplog.text


def test_an_engine_that_ends_with_the_server_is_no_failure() -> None:
    watch, stopping = run._EngineWatch(), Server(should_exit=True)

    asyncio.run(watch.run(Engine(looks=0), stopping))  # type: ignore[arg-type]

    assert not watch.died
    assert not stopping.asked
