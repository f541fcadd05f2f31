"""Help, and what the command line makes of words that it does not know."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rankd.cli.main import main
from rankd.cli.parser import COMMANDS
from rankd.config.settings import Settings
from rankd.config.show import topics
from rankd.errors import EXIT_CODES
from support.servers import command, run
from support.terminals import on_terminal

NAMES = [name for names in COMMANDS.values() for name in names]
OFFLINE = ("check", "rerank", "eval", "calibrate")


def helped(*arguments: str, columns: int = 80) -> str:
    ended = run(*arguments, "--help", COLUMNS=str(columns), NO_COLOR="1")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_help_of_rankd_is_one_screen_with_every_command_by_what_it_is_for() -> None:
    said = helped()

    assert len(said.splitlines()) <= 24
    for purpose, commands in COMMANDS.items():
        listed = said.split(f"\n{purpose}\n")[1].split("\n\n")[0]
        assert re.findall(r"^  (\S+)", listed, re.MULTILINE) == list(commands)


def test_the_help_names_every_exit_status() -> None:
    said = " ".join(helped().split())

    assert all(f"{code} {meaning}" in said for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize("name", [None, *NAMES])
def test_help_fits_a_narrow_terminal_and_is_ascii(name: str | None) -> None:
    said = helped(*filter(None, [name]), columns=40)

    assert said.isascii()
    # Usage lines are for copying, and the choices of a flag are one word.
    wide = [line for line in said.splitlines() if len(line) > 40]
    assert [line for line in wide if not line.startswith(("usage: ", "  --"))] == []


def test_every_setting_has_a_topic() -> None:
    found = topics()

    assert "More" not in found, f"put {found.get('More')} into the topics of settings.py"
    names = [name for listed in found.values() for name in listed]
    assert sorted(names) == sorted(Settings.model_fields)


def test_the_help_of_serve_has_every_setting_under_its_topic() -> None:
    said = helped("serve")

    for topic, names in topics().items():
        section = said.split(f"\n{topic}:\n")[1].split("\n\n")[0]
        for name in names:
            flag = "api-key" if name == "api_keys" else name.replace("_", "-")
            assert re.search(rf"^  --{flag}\b", section, re.MULTILINE), name


@pytest.mark.parametrize("name", OFFLINE)
def test_commands_without_a_server_list_what_matters_to_them(name: str) -> None:
    said = helped(name)

    assert "--device" in said
    assert "--max-connections" not in said
    assert "Every other setting of `rankd serve --help` is taken, too." in said


def test_what_the_help_leaves_out_is_taken_and_looked_at_all_the_same() -> None:
    taken = run("check", "--engine", "fake", "--self-check", "off", "--max-connections", "7")
    wrong = run("check", "--max-connections", "none")
    near = run("check", "--max-conections", "7")

    assert taken.returncode == 1  # The fake engine knows nothing.
    assert wrong.stderr.startswith("rankd: max_connections = 'none'")
    assert "did you mean --max-connections?" in near.stderr


@pytest.mark.parametrize(("word", "hint"), [("sreve", "; did you mean serve?"), ("xyzzy", "")])
def test_a_command_that_is_not_there_is_one_line_with_the_nearest(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"rankd: unknown command {word!r}{hint} (see `rankd --help`)\n"


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


def test_help_on_a_terminal_is_as_wide_as_it() -> None:
    shown = on_terminal("--help", columns=50)

    assert shown.status == 0
    assert max(map(len, shown.lines)) <= 50


def test_every_exit_status_is_in_the_documentation_with_its_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    table = page.split("## Exit status\n")[1].split("\n## ")[0]

    rows = re.findall(r"^\| (\d+) \| ([^|]+?) \|", table, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == dict(EXIT_CODES)
