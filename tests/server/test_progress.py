"""How far a start has come: one line on a terminal, messages in a log."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rankd.errors import INTERRUPTED
from rankd.server import progress
from rankd.server.progress import sentence, show_progress
from rankd.telemetry.startup import STEP_LISTENER, StartupStep, report_step
from support.terminals import on_terminal


@pytest.mark.parametrize(
    ("loading", "seconds", "first", "expected"),
    [
        (StartupStep("looking"), 0.4, 0, "looking"),
        (StartupStep("looking"), 7.2, 0, "looking (7 s)"),
        (StartupStep("loading m", 7, 28, "layers"), 0.5, 0, "loading m: 25%, 7 of 28 layers"),
        (
            StartupStep("loading m", 7, 28, "layers"),
            10,
            0,
            "loading m: 25%, 7 of 28 layers, about 30 s left",
        ),
        (
            StartupStep("getting m", 600 * 10**6, 1200 * 10**6, "B", then="it is loaded"),
            300,
            0,
            "getting m: 50%, 0.6 of 1.2 GB, about 5 min left, then it is loaded",
        ),
        # What was there before says nothing of the speed: 100 MB in 10 s, 900 MB to go.
        (
            StartupStep("getting m", 100 * 10**6, 1000 * 10**6, "B"),
            10,
            50 * 10**6,
            "getting m: 10%, 0.1 of 1.0 GB, about 3 min left",
        ),
        (StartupStep("getting m", 1, 3 * 10**8, "B"), 60, 0, "getting m: 0%, 0.0 of 300.0 MB"),
        (
            StartupStep("loading m", 27, 28, "layers"),
            27,
            0,
            "loading m: 96%, 27 of 28 layers, less than 10 s left",
        ),
    ],
)
def test_a_step_in_words(loading: StartupStep, seconds: float, first: int, expected: str) -> None:
    assert sentence(loading, seconds, first) == expected


@asynccontextmanager
async def _opening(*steps: StartupStep, seconds: float = 0.0) -> AsyncIterator[str]:
    for step in steps:
        report_step(step)
        await asyncio.sleep(seconds)
    yield "open"


def test_a_log_has_steps_once_and_long_ones_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.2)
    caplog.set_level(logging.INFO, "rankd")
    steps = [StartupStep("loading m", done, 4, "layers") for done in range(1, 5)]

    async def start() -> None:
        async with show_progress(_opening(StartupStep("looking"), *steps, seconds=0.13)) as opened:
            assert opened == "open"

    asyncio.run(start())

    assert caplog.messages[0] == "looking"
    assert caplog.messages.count("loading m") == 1
    assert [said for said in caplog.messages if said.startswith("loading m: ")]


def test_a_watch_that_is_over_hears_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rankd")

    async def start_and_restart() -> None:
        async with show_progress(_opening()):
            pass
        assert STEP_LISTENER.get() is None

    async def restarts_inside() -> None:
        @asynccontextmanager
        async def opening() -> AsyncIterator[asyncio.Event]:
            go = asyncio.Event()

            async def restart() -> None:
                await go.wait()
                report_step(StartupStep("starting again"))

            task = asyncio.create_task(restart())
            yield go
            await task

        async with show_progress(opening()) as go:
            go.set()

    asyncio.run(start_and_restart())
    asyncio.run(restarts_inside())

    assert "starting again" not in caplog.messages


def test_a_message_of_the_log_gets_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)

    async def start() -> None:
        async with show_progress(
            _opening(StartupStep("looking"), StartupStep("loading"), seconds=0.3)
        ):
            logging.getLogger("rankd").warning("after it")

    async def warn() -> None:
        await asyncio.sleep(0.1)
        logging.getLogger("rankd").warning("something")

    async def both() -> None:
        await asyncio.gather(start(), warn())

    try:
        asyncio.run(both())
    finally:
        logging.getLogger().removeHandler(handler)

    shown = stream.getvalue()
    assert "looking\r\x1b[Ksomething\n" in shown
    assert shown.endswith("\r\x1b[Kafter it\n")


def test_what_speaks_for_itself_is_not_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    async def start() -> None:
        async with show_progress(
            _opening(StartupStep("starting vLLM", draws_itself=True), seconds=0.5)
        ):
            pass

    asyncio.run(start())

    assert stream.getvalue().endswith("starting vLLM\n")


def test_a_terminal_shows_what_it_waits_for_and_nothing_of_it_afterwards() -> None:
    shown = on_terminal("check", columns=100)

    assert shown.status == 0
    assert "starting the native engine for builtin" in shown.raw
    assert "starting" not in shown.text


def test_the_native_engine_tells_of_every_layer() -> None:
    from rankd.config.settings import Settings
    from rankd.server.app import open_ranker

    told: list[StartupStep] = []

    async def start() -> None:
        heard = STEP_LISTENER.set(told.append)
        async with open_ranker(Settings(engine="native", device="cpu")) as (checkpoint, _):
            STEP_LISTENER.reset(heard)
            layers = int(checkpoint.config["num_hidden_layers"])
            counted = [(one.done, one.total) for one in told if one.unit == "layers"]
            assert counted == [(done, layers) for done in range(1, layers + 1)]

    asyncio.run(start())


@pytest.mark.parametrize("name", ["check", "serve"])
def test_ctrl_c_while_it_loads_is_calm(name: str) -> None:
    port = ("--port", "0") if name == "serve" else ()
    shown = on_terminal(name, *port, until="starting the native engine")

    # A server that is asked to stop has done what it should.
    assert shown.status == (0 if name == "serve" else INTERRUPTED)
    assert "Traceback" not in shown.raw
    assert shown.text.replace("^C", "").strip() == ""


def test_a_dumb_terminal_gets_no_escape_sequences() -> None:
    shown = on_terminal("check", environment={"TERM": "dumb"})

    assert shown.status == 0
    assert "\x1b" not in shown.raw
