"""Progress of a start: one updated line on a terminal, otherwise log lines."""

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
    ("step", "seconds", "done_at_start", "expected"),
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
        # An earlier download does not count for the speed: 50 MB in 10 s, 900 MB to go.
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
def test_a_step_is_described_with_its_progress_and_the_time_left(
    step: StartupStep, seconds: float, done_at_start: int, expected: str
) -> None:
    assert sentence(step, seconds, done_at_start) == expected


@asynccontextmanager
async def _opening(*steps: StartupStep, seconds: float = 0.0) -> AsyncIterator[str]:
    for step in steps:
        report_step(step)
        await asyncio.sleep(seconds)
    yield "open"


@pytest.mark.anyio
async def test_the_log_has_each_step_once_and_long_steps_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.2)
    caplog.set_level(logging.INFO, "rankd")
    steps = [StartupStep("loading m", done, 4, "layers") for done in range(1, 5)]

    async with show_progress(_opening(StartupStep("looking"), *steps, seconds=0.13)) as opened:
        assert opened == "open"

    assert caplog.messages[0] == "looking"
    assert caplog.messages.count("loading m") == 1
    assert [line for line in caplog.messages if line.startswith("loading m: ")]


@pytest.mark.anyio
async def test_no_listener_is_left_after_the_start() -> None:
    async with show_progress(_opening()):
        pass

    assert STEP_LISTENER.get() is None


@pytest.mark.anyio
async def test_steps_after_the_start_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A restart of the engine runs in a task that still has the listener."""
    caplog.set_level(logging.INFO, "rankd")

    @asynccontextmanager
    async def opening() -> AsyncIterator[asyncio.Event]:
        started = asyncio.Event()

        async def restart() -> None:
            await started.wait()
            report_step(StartupStep("starting again"))

        task = asyncio.create_task(restart())
        yield started
        await task

    async with show_progress(opening()) as started:
        started.set()

    assert "starting again" not in caplog.messages


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def stderr_as_terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Not a fixture: pytest replaces sys.stderr between the setup and the test."""
    stream = Tty()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.mark.anyio
async def test_a_log_record_gets_its_own_line_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = stderr_as_terminal(monkeypatch)
    handler = logging.StreamHandler(tty)
    logging.getLogger().addHandler(handler)

    async def start() -> None:
        async with show_progress(
            _opening(StartupStep("looking"), StartupStep("loading"), seconds=0.3)
        ):
            logging.getLogger("rankd").warning("after it")

    async def warn() -> None:
        await asyncio.sleep(0.1)
        logging.getLogger("rankd").warning("something")

    try:
        await asyncio.gather(start(), warn())
    finally:
        logging.getLogger().removeHandler(handler)

    shown = tty.getvalue()
    assert "looking\r\x1b[Ksomething\n" in shown
    assert shown.endswith("\r\x1b[Kafter it\n")


@pytest.mark.anyio
async def test_a_step_that_draws_its_own_progress_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = stderr_as_terminal(monkeypatch)
    step = StartupStep("starting vLLM", draws_itself=True)
    async with show_progress(_opening(step, seconds=0.5)):
        pass

    assert tty.getvalue().endswith("starting vLLM\n")


def test_a_terminal_shows_the_current_step_and_clears_it_at_the_end() -> None:
    shown = on_terminal("check", columns=100)

    assert shown.status == 0
    assert "starting the native engine for builtin" in shown.raw
    assert "starting" not in shown.text


@pytest.mark.anyio
async def test_the_native_engine_reports_every_layer() -> None:
    from rankd.config.settings import Settings
    from rankd.server.app import open_ranker

    steps: list[StartupStep] = []
    token = STEP_LISTENER.set(steps.append)
    async with open_ranker(Settings(engine="native", device="cpu")) as (checkpoint, _):
        STEP_LISTENER.reset(token)
        layers = int(checkpoint.config["num_hidden_layers"])

    reported = [(step.done, step.total) for step in steps if step.unit == "layers"]
    assert layers > 1
    assert reported == [(done, layers) for done in range(1, layers + 1)]


@pytest.mark.parametrize("name", ["check", "serve"])
def test_ctrl_c_during_a_start_exits_without_a_traceback(name: str) -> None:
    port = ("--port", "0") if name == "serve" else ()
    shown = on_terminal(name, *port, until="starting the native engine")

    # A server that is stopped by a signal exits with 0.
    assert shown.status == (0 if name == "serve" else INTERRUPTED)
    assert "Traceback" not in shown.raw
    assert shown.text.replace("^C", "").strip() == ""


@pytest.mark.slow
def test_a_dumb_terminal_gets_no_escape_sequences() -> None:
    shown = on_terminal("check", environment={"TERM": "dumb"})

    assert shown.status == 0
    assert "\x1b" not in shown.raw
