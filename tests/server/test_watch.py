"""The server stops, with its own exit status, when its engine cannot be restarted."""

from __future__ import annotations

import pytest

from rankd.errors import EngineDown
from rankd.server import run

pytestmark = pytest.mark.anyio


class DyingEngine:
    """Passes `checks` checks, then is dead."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    async def check(self) -> None:
        self.checks -= 1
        if self.checks < 0:
            raise EngineDown("the engine has died")


class RunningServer:
    def __init__(self, *, should_exit: bool = False) -> None:
        self.should_exit = should_exit
        self.was_stopped = False

    def ask_to_stop(self) -> None:
        self.was_stopped = True


@pytest.fixture(autouse=True)
def _without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_ENGINE_CHECK_INTERVAL", 0.001)
    monkeypatch.setattr(run, "_EXIT_DELAY", 0.001)


async def test_a_dead_engine_stops_the_server(caplog: pytest.LogCaptureFixture) -> None:
    watch, server = run._EngineWatch(), RunningServer()

    await watch.run(DyingEngine(checks=3), server)  # type: ignore[arg-type]

    assert watch.died
    assert server.was_stopped
    assert "stopping: the engine has died" in caplog.text


async def test_an_engine_that_stops_with_the_server_is_not_a_failure() -> None:
    watch, server = run._EngineWatch(), RunningServer(should_exit=True)

    await watch.run(DyingEngine(checks=0), server)  # type: ignore[arg-type]

    assert not watch.died
    assert not server.was_stopped
