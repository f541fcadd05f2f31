"""The help of every command, and errors for unknown words."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rankd.cli.main import main
from rankd.cli.parser import COMMANDS
from rankd.config.removed import REMOVED
from rankd.config.settings import Settings
from rankd.config.show import COMMON, topics
from rankd.errors import EXIT_CODES
from support.servers import command, run
from support.terminals import on_terminal

NAMES = [name for names in COMMANDS.values() for name in names]
# Flags of `rankd serve` that are not settings.
OWN_FLAGS = ("--help-all", "--print-config", "--config")

OFFLINE = ("check", "rerank", "score", "eval", "calibrate")


def helped(*arguments: str, columns: int = 80) -> str:
    ended = run(*arguments, "--help", COLUMNS=str(columns), NO_COLOR="1")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_help_of_rankd_is_one_screen_with_every_command_by_purpose() -> None:
    text = helped()

    assert len(text.splitlines()) <= 24
    for purpose, commands in COMMANDS.items():
        listed = text.split(f"\n{purpose}\n")[1].split("\n\n")[0]
        assert re.findall(r"^  (\S+)", listed, re.MULTILINE) == list(commands)


def test_the_help_names_every_exit_status() -> None:
    text = " ".join(helped().split())

    assert all(f"{code} {meaning}" in text for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize("name", [None, *NAMES])
def test_help_fits_a_narrow_terminal_and_is_ascii(name: str | None) -> None:
    text = helped(*filter(None, [name]), columns=40)

    assert text.isascii()
    assert too_wide(text) == []


def too_wide(text: str) -> list[str]:
    """Lines over 40 columns, but usage lines, which are for copying, and flags with choices."""
    wide = [line for line in text.splitlines() if len(line) > 40]
    return [line for line in wide if not line.startswith(("usage: ", "  --"))]


def test_every_setting_has_a_topic() -> None:
    by_topic = topics()

    assert "More" not in by_topic, f"put {by_topic.get('More')} into the topics of config/show.py"
    names = [name for listed in by_topic.values() for name in listed]
    assert sorted(names) == sorted(Settings.model_fields)


def flag(name: str) -> str:
    return "--api-key" if name == "api_keys" else f"--{name.replace('_', '-')}"


def listed(text: str) -> list[str]:
    """The flags of a help, each once, in order."""
    return re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)


def test_the_help_of_serve_shows_the_common_settings_only() -> None:
    text = helped("serve")

    assert len(COMMON) == 15
    flags = [found for found in listed(text) if found not in OWN_FLAGS]
    assert flags == [flag(name) for name in COMMON]
    assert "`rankd serve --help-all` lists them by topic." in " ".join(text.split())


def test_help_all_shows_every_setting_under_its_topic() -> None:
    ended = run("serve", "--help-all", COLUMNS="80", NO_COLOR="1")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(helped("serve").split("Settings:")[0])
    for topic, names in topics().items():
        section = ended.stdout.split(f"\n{topic}:\n")[1].split("\n\n")[0]
        assert listed(section) == [flag(name) for name in names]


def test_help_all_fits_a_narrow_terminal_and_is_ascii() -> None:
    text = run("serve", "--help-all", COLUMNS="40", NO_COLOR="1").stdout

    assert text.isascii()
    assert too_wide(text) == []


def test_descriptions_of_settings_are_short() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(field.description) <= 95, name


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_flag_says_what_to_do_instead(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", flag(name), "1"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"rankd: unknown argument {flag(name)} (removed): {REMOVED[name]} "
        "(see `rankd serve --help`)\n"
    )


@pytest.mark.parametrize("name", OFFLINE)
def test_commands_without_a_server_list_only_settings_that_affect_them(name: str) -> None:
    text = helped(name)

    assert "--device" in text
    assert "--batch-dir" not in text
    assert "`rankd serve --help-all` lists them by topic." in " ".join(text.split())


@pytest.mark.slow
def test_flags_that_the_help_does_not_list_are_accepted_and_validated() -> None:
    taken = run("check", "--engine", "fake", "--self-check", "off", "--batch-days", "7")
    wrong = run("check", "--batch-days", "none")
    near = run("check", "--batch-dais", "7")

    assert taken.returncode == 1  # The fake engine gives wrong scores.
    assert wrong.stderr.startswith("rankd: batch_days = 'none'")
    assert "did you mean --batch-days?" in near.stderr


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("sreve", "; did you mean serve?"),
        ("pull", "; did you mean download?"),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])

    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text == f"rankd: unknown command {word!r}{hint} (see `rankd --help`)\n"


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from rankd.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "heavy = {'torch', 'fastapi', 'uvicorn', 'huggingface_hub', 'shtab', 'tqdm', 'uvloop'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    ended = subprocess.run(
        [command()[0], "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr


def test_help_is_as_wide_as_the_terminal() -> None:
    shown = on_terminal("--help", columns=50)

    assert shown.status == 0
    assert max(map(len, shown.lines)) <= 50


def test_every_exit_status_is_in_the_documentation_with_its_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    table = page.split("## Exit status\n")[1].split("\n## ")[0]

    rows = re.findall(r"^\| (\d+) \| ([^|]+?) \|", table, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == dict(EXIT_CODES)
