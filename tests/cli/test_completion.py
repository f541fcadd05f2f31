"""`rankd completion`, run in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.servers import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        ended = run("completion", shell)
        assert ended.returncode == 0, ended.stderr
        (folder / shell).write_text(ended.stdout)
    return folder


def need(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no {shell} here")
        pytest.skip(f"no {shell} here")
    return found


def offered(shell: str, script: Path, line: str) -> set[str]:
    """The words that a shell offers when TAB is pressed at the end of a line."""
    program = {"bash": _BASH, "fish": _FISH}[shell]
    arguments = {"bash": ["--norc"], "fish": ["--no-config"]}[shell]
    ended = subprocess.run(
        [need(shell), *arguments, "-c", program],
        env={**os.environ, "SCRIPT": str(script), "LINE": line, "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # fish adds a description behind a tab, and some shells a blank behind a word.
    return {found.split("\t")[0].strip() for found in ended.stdout.splitlines()}


_BASH = """
source "$SCRIPT"
read -ra COMP_WORDS <<< "$LINE"
[[ "$LINE" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
COMP_LINE="$LINE" COMP_POINT=${#LINE}
function=$(complete -p rankd | sed -E 's/.* -F ([^ ]+) .*/\\1/')
"$function" rankd "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""

_FISH = """
source $SCRIPT
complete -C "$LINE"
"""


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rankd ", {"serve", "check", "rerank", "hash-key", "completion"}),
        ("rankd ser", {"serve"}),
        ("rankd serve --max-doc", {"--max-documents"}),
        ("rankd serve --batch-d", {"--batch-dir", "--batch-days"}),
        ("rankd serve --engine ", {"auto", "native", "vllm", "fake"}),
        ("rankd serve --engine v", {"vllm"}),
        ("rankd serve --config configs/built", {"configs/builtin-cpu.toml"}),
        ("rankd completion ", {"bash", "zsh", "fish"}),
        ("rankd check --js", {"--json"}),
    ],
)
def test_a_shell_completes_commands_flags_choices_and_files(
    shell: str, line: str, expected: set[str], scripts: Path
) -> None:
    found = offered(shell, scripts / shell, line)

    assert expected <= found
    # Only words that begin with the typed text are offered.
    typed = line.split(" ")[-1]
    assert all(word.startswith(typed) for word in found if word)


def test_zsh_loads_the_script_and_uses_it_for_rankd(scripts: Path) -> None:
    """Completion needs its line editor, so TAB is not pressed."""
    program = f"""
    autoload -Uz compinit && compinit -u -D
    eval "$(<{scripts}/zsh)"
    print $_comps[rankd]
    whence -w $_comps[rankd]
    """
    ended = subprocess.run(
        [need("zsh"), "-f", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.stderr == ""
    name, kind = ended.stdout.splitlines()
    assert kind == f"{name}: function"
    script = (scripts / "zsh").read_text()
    assert "--max-documents" in script
    assert "(auto native vllm ray fake)" in script


def test_an_unknown_shell_is_an_error_of_one_line() -> None:
    ended = run("completion", "csh")

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
