"""Broken pipes, closed streams, ASCII locales, exit statuses, and docs/cli.md."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from rankd.errors import EXIT_CODES, BadModel, BadSettings, PortTaken, SelfCheckFailed, SetupError
from support.servers import command, run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
FAKE = " --engine fake"


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, with the program in $RANKD."""
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "RANKD": " ".join(command()), **environment},
        check=False,
    )


@pytest.mark.parametrize(
    "writer", ["check" + FAKE, "serve --help", "version", "completion bash", "serve --print-config"]
)
def test_a_reader_that_closes_the_pipe_causes_no_error(writer: str) -> None:
    ended = shell(f'$RANKD {writer} | head -c 1; echo "${{PIPESTATUS[0]}}"')

    # `check` with the fake engine ends with 1, also if its reader has left.
    assert ended.stdout[1:] in ("0\n", "1\n")
    assert ended.stderr == ""


def test_a_pipe_closed_in_the_middle_of_much_output_causes_no_error() -> None:
    ended = shell(
        # Several times the capacity of a pipe.
        "seq 5000 | $RANKD rerank --engine fake --query q - | head -1 >/dev/null; "
        'echo "${PIPESTATUS[1]}"'
    )

    assert ended.stdout == "0\n"
    assert ended.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("$RANKD rerank --query q - <&-", 2, "rankd: standard input is closed\n"),
        ("$RANKD hash-key <&-", 2, "rankd: standard input is closed\n"),
        ("$RANKD hash-key </dev/null", 2, "rankd: no key was given; make one with"),
        ("$RANKD version >&-", 0, ""),
        ("$RANKD check --engine fake >&- 2>&-", 1, ""),
        ("$RANKD rerank --query q /no/such 2>&-", 2, ""),
        ("echo a fox | $RANKD rerank --query fox - >&-", 0, ""),
    ],
)
def test_a_closed_stream_causes_no_traceback(script: str, status: int, message: str) -> None:
    ended = shell(script)

    assert ended.returncode == status, ended.stderr
    assert ended.stderr.startswith(message)
    assert "Traceback" not in ended.stderr
    assert message or ended.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_an_ascii_locale_causes_no_traceback(locale: dict[str, str]) -> None:
    checked = shell("$RANKD check", **locale)
    ranked = shell("echo 北京 | $RANKD rerank --engine fake --query 中国 -", **locale)

    assert checked.returncode == 0, checked.stderr
    assert "This set-up gives right scores." in checked.stdout
    assert ranked.returncode == 0, ranked.stderr
    assert '"text":"北京"' in ranked.stdout  # Data are UTF-8 in every locale.


def test_every_setup_error_has_a_documented_exit_status() -> None:
    errors = (SetupError, BadSettings, BadModel, PortTaken, SelfCheckFailed)

    assert [error.exit_code for error in errors] == [1, 2, 3, 4, 5]
    assert {error.exit_code for error in errors} < set(EXIT_CODES)


def test_exit_statuses_are_as_documented() -> None:
    # 4, 5, 6 and 130: test_server.py and test_waiting.py.
    assert run("version").returncode == 0
    assert run("check", "--engine", "fake").returncode == 1
    assert run("check", "--port", "none").returncode == 2
    assert run("check", "/no/such/model").returncode == 3
    assert run("probe", "--port", "1").returncode == 1


BLOCKS = re.findall(r"```console\n\$ rankd ([^\n]+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("arguments", "shown"), BLOCKS, ids=[block[0] for block in BLOCKS])
def test_the_documented_help_is_the_help(arguments: str, shown: str) -> None:
    said = run(*arguments.split(), COLUMNS="80", NO_COLOR="1").stdout

    head, cut, rest = shown.partition("\n…\n")
    assert rest == ""
    assert said.startswith(f"{head}\nSettings:\n") if cut else said == shown


def test_every_command_is_documented() -> None:
    from rankd.cli.parser import COMMANDS

    names = [name for listed in COMMANDS.values() for name in listed]
    assert {arguments.split()[0] for arguments, _ in BLOCKS} == {*names, "--help"}
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
