"""The summary on the terminal when `rankd serve` is ready."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.server.app import open_app
from rankd.server.banner import ready
from rankd.telemetry import terminal
from support.servers import serving
from support.terminals import Shown, on_terminal

READY = "Ctrl-C stops the server"


def served(*arguments: str, columns: int = 80, **environment: str) -> Shown:
    """The terminal of a server on the fake engine, until it is ready."""
    options = ("serve", "--engine", "fake", "--port", "0", *arguments)
    return on_terminal(*options, columns=columns, until=READY, environment=environment)


def screen_of(columns: int = 80, **options: object) -> str:
    """The summary for these settings, without a server."""

    async def rendered() -> str:
        settings = Settings.model_validate({"engine": "fake", **options})
        async with open_app(settings) as app:
            stream = io.StringIO()
            return ready(app, settings, settings.host, 8000, stream)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", str(columns))
        return asyncio.run(rendered())


def test_a_terminal_shows_address_engine_keys_and_limits_on_one_screen() -> None:
    shown = served("--max-documents", "70", "--api-key", "k" * 20)

    assert shown.status == 0
    url = re.findall(r"Address +(http://127\.0\.0\.1:\d+)", shown.text)[0]
    assert f"{url}/docs" in shown.text
    assert f"{url}/metrics" in shown.text
    assert "builtin is ready (rankd " in shown.text
    assert "Engine   fake on none" in shown.text
    assert "needed: 1 given" in shown.text
    assert "70 documents and 32 MiB a request" in shown.text
    assert "k" * 20 not in shown.text
    assert len(shown.lines) < 24
    assert "is ready at" not in shown.text  # The line for logs.


def test_without_a_terminal_there_is_no_summary() -> None:
    with serving("--engine", "fake") as server:
        _, errors = server.stop(2)

    assert READY not in errors
    assert "\x1b" not in errors


@pytest.mark.parametrize("columns", [40, 200])
def test_no_line_is_longer_than_the_terminal(columns: int) -> None:
    shown = served(columns=columns)

    lines = shown.text[: shown.text.index("stopping;")].splitlines()[:-1]
    # A URL is never broken over two lines: it could not be clicked.
    assert max(len(line) for line in lines if "http://" not in line) <= columns
    assert len(lines) > 8


@pytest.mark.slow
def test_colours_depend_on_the_terminal_and_on_no_color() -> None:
    assert "\x1b[1m" in served().raw
    assert "\x1b[1m" not in served(NO_COLOR="1").raw
    dumb = served(TERM="dumb").raw
    assert "\x1b" not in dumb
    assert READY in dumb


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "", "NO_COLOR": ""}, False),
    ],
)
def test_without_a_terminal_colours_need_force_color(
    environment: dict[str, str], expected: bool
) -> None:
    assert terminal.has_colours(io.StringIO(), environment) is expected


def test_the_summary_is_plain_ascii() -> None:
    assert screen_of().isascii()


def test_the_engine_is_shown_with_its_number_format_and_why() -> None:
    def engine(dtype: str) -> str:
        shown = screen_of(engine="native", device="cpu", dtype=dtype)
        return str(re.findall(r"Engine +(.+)", shown)[0])

    assert engine("auto") == "native on cpu, float32 (small model)"
    assert engine("bfloat16") == "native on cpu, bfloat16 (set by dtype)"


def test_the_web_page_is_shown_only_if_it_is_served() -> None:
    assert "http://127.0.0.1:8000/ui" in screen_of()
    assert "/ui" not in screen_of(ui=False)


def test_a_wildcard_host_is_shown_as_the_loopback_address() -> None:
    shown = " ".join(screen_of(host="0.0.0.0").split())

    assert "http://127.0.0.1:8000, and all other addresses of this machine (0.0.0.0)" in shown
    assert "http://[::1]:8000/docs" in screen_of(host="::")


def test_https_batch_jobs_and_limits_of_keys_are_shown(tmp_path: Path) -> None:
    shown = " ".join(
        screen_of(
            ssl_certfile="cert.pem",
            batch_dir=tmp_path,
            key_requests_per_minute=60,
            key_concurrency=2,
            truncation="refuse",
        ).split()
    )

    assert "Address https://127.0.0.1:8000 " in shown
    assert f"Batches in {tmp_path}" in shown
    assert "none needed; each 60 requests a minute, 2 requests at a time" in shown
    assert "longer ones are refused" in shown


def test_aliases_of_the_model_are_shown() -> None:
    assert "Names    builtin, code" in screen_of(aliases={"code": {}})


def test_the_summary_in_the_docs_is_the_real_one() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```text\n(builtin is ready .*?)\n```", page, re.DOTALL)
    documented, real = (
        # Without the lines that differ between engines and releases.
        re.sub(r"(Model|Engine) .*|\(rankd [^)]+\)", r"\1", text)
        for text in (shown, screen_of().strip())
    )

    assert documented == real
