"""The commands of both READMEs work as pasted, show what they print, and the README is short."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.servers import Server, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    "README.md": README,
    "README.zh-CN.md": (ROOT / "README.zh-CN.md").read_text(encoding="utf-8"),
}
HOST = "http://127.0.0.1:8000"
MAX_WORDS = 900

# Programs whose effect is not wanted here: make prints what it would do, docker does nothing.
_HARMLESS = """
make() { command make --dry-run "$@"; }
docker() { :; }
"""
_DOWNLOAD = re.compile(r"\.venv/bin/rankd download (\S+)")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}: {self.code.splitlines()[0][:50]}"


ALL = [
    Block(page, language, code)
    for page, text in PAGES.items()
    for language, code in _FENCE.findall(text)
]
COMMANDS = [block for block in ALL if block.language == "bash"]
PROGRAMS = [block for block in ALL if block.language == "python"]


def paste(block: str, cwd: Path = ROOT) -> str:
    """Run a block in a shell with this Python's rankd; returns its standard output."""
    # One substitution, because this Python may itself be in a .venv.
    code = re.sub(
        r"\.venv/bin/(rankd|python)",
        lambda match: sys.executable + " -m rankd" * (match[1] == "rankd"),
        block,
    )
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def words(text: str) -> list[str]:
    """The words of a page outside code blocks, link targets and the markup of tables."""
    text = re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)
    return re.findall(r"[^\s|]*\w[^\s|]*", re.sub(r"\]\([^)]*\)", "]", text))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_the_readme_has_at_most_900_words() -> None:
    assert words(
        "# A b\n\n| c | `d e` |\n|---|---|\n\n```bash\nno\n```\n[f](g h.md) · <!-- no -->"
    ) == [*["A", "b", "c", "`d", "e`", "[f]"]]
    assert 300 < len(words(README)) <= MAX_WORDS


def test_a_stranger_reaches_the_first_score_within_150_words() -> None:
    before, curl, _ = README.partition("curl -s")

    assert curl
    assert len(words(before)) <= 150
    assert re.search(r"!\[[^]]+\]\(docs/images/[\w-]+\.png\)", before)


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_run(block: Block, server: Server, tmp_path: Path) -> None:
    code = block.code.replace(HOST, server.url)
    code = re.sub(
        r"git clone (ADDRESS-OF-THIS-REPOSITORY|本仓库地址)", f"git clone -q {ROOT}", code
    )
    code = _DOWNLOAD.sub("echo builtin && : ", code).replace(".venv/bin/pip install", ":")
    cwd = tmp_path if "git clone" in code else ROOT

    printed = paste(_HARMLESS + code, cwd)

    for arguments in re.findall(r'ARGS="([^"]*)"', code):
        assert f"rankd serve {arguments.replace('$folder', 'builtin')}" in printed
    assert "make serve" not in code or "rankd serve" in printed


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_arguments_of_the_server_are_accepted(block: Block) -> None:
    used = re.findall(r'ARGS="([^"$]*)"', block.code) + _DOWNLOAD.findall(block.code)
    used += re.findall(r"^.*\brankd:(?:cuda|ascend) (?:check )?(\S+)$", block.code, re.MULTILINE)

    for arguments in used:
        printed = paste(f".venv/bin/rankd serve {arguments} --print-config")
        assert "# flag" in printed
    if "--modelscope" in block.code:
        assert "--modelscope" in paste(".venv/bin/rankd download --help")
    for dockerfile in re.findall(r"docker build -f (\S+)", block.code):
        assert (ROOT / dockerfile).exists()


def test_every_page_has_commands_of_each_kind() -> None:
    for page in PAGES:
        codes = [block.code for block in COMMANDS if block.page == page]
        for kind in ("git clone", "make serve", "curl -s", "docker run"):
            assert any(kind in code for code in codes), f"{page}: {kind}"
        assert len([block for block in PROGRAMS if block.page == page]) == 1


def test_the_address_of_the_clone_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "ADDRESS-OF-THIS-REPOSITORY")

    assert f"git clone {address} rankd && cd rankd" in README


@pytest.mark.parametrize("page", PAGES)
def test_the_curl_ranks_the_right_document_first_and_prints_what_is_shown(
    page: str, server: Server
) -> None:
    [block] = [it.code for it in COMMANDS if it.page == page and "curl -s" in it.code]
    [shown] = [it.code for it in ALL if it.page == page and it.language == "json"]

    answer = json.loads(paste(block.replace(HOST, server.url)))

    first, second = answer["results"]
    assert first["index"] == 1
    assert first["relevance_score"] > 0.5 > second["relevance_score"]
    scores = [float(score) for score in re.findall(r'"relevance_score":([\d.]+)', shown)]
    assert scores == pytest.approx([r["relevance_score"] for r in answer["results"]], rel=1e-2)
    for result in answer["results"]:
        assert f'"index":{result["index"]},"relevance_score":' in shown
    assert f'"text":"{first["document"]["text"]}"' in shown
    assert all(f'"{key}":' in shown for key in answer)
    for number in re.findall(r'"prompt_tokens":(\d+)', shown):
        assert int(number) == answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_the_rag_program_keeps_the_document_that_answers(block: Block, server: Server) -> None:
    program = f"""
question = "how do I undo a commit?"
def search(question, limit):
    return [f"Page {{number}} of the manual is empty." for number in range(limit - 1)] + [
        "To undo a commit, use git revert: it makes a new commit that takes the old one back."
    ]
{block.code.replace(HOST, server.url)}
print(context.splitlines()[0], len(candidates), len(answer["results"]))
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert printed.startswith("To undo a commit")
    assert printed.split()[-2:] == ["50", "5"]
    assert len([line for line in block.code.splitlines() if line and line[0] != "#"]) == 5


def test_its_figures_are_those_of_the_page_of_performance() -> None:
    performance = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    table = performance.split("## Other servers and libraries")[1].split("\n## ")[0]
    rows = [_cells(line) for line in table.splitlines() if line.startswith("|")]

    shown = _figures(README)
    assert len(shown) >= 3
    for name, *numbers in shown:
        [row] = [row for row in rows if row[0].partition(" (")[0] == name]
        assert set(numbers) <= set(row), f"{name}: {numbers}, but docs/performance.md has {row}"


def test_both_pages_have_the_same_figures() -> None:
    english, chinese = ([row[1:] for row in _figures(text)] for text in PAGES.values())

    assert english == chinese


def _figures(text: str) -> list[list[str]]:
    """The rows of the table of figures, without its head."""
    table = re.split(r"^## (?:Speed|速度)$", text, flags=re.MULTILINE)[1].split("\n## ")[0]
    return [_cells(line) for line in table.splitlines() if line.startswith("|")][2:]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("page", PAGES)
def test_base_urls_are_those_of_the_page_of_clients(page: str) -> None:
    clients = (ROOT / "docs/clients.md").read_text(encoding="utf-8")

    urls = set(re.findall(r"`(http://[^`]+)`", PAGES[page]))
    assert len(urls) > 5
    assert [url for url in urls if url not in clients] == []


@pytest.mark.slow
def test_the_evaluation_example_of_the_quick_start_works(tmp_path: Path) -> None:
    quickstart = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```bash evaluation\n(.*?)```", quickstart, re.DOTALL)
    installs, _, commands = block.partition("\n")

    assert installs.endswith("-e '.[eval]'")
    printed = paste(commands.replace("/tmp/rankd-sets", str(tmp_path)))

    assert re.search(r"^nDCG@10 .*0\.\d{3}", printed, re.MULTILINE)
    assert "[calibration." in printed
    assert (tmp_path / "scores.png").exists()
    assert (tmp_path / "out/report.md").exists()


@pytest.mark.parametrize("page", [*PAGES, "docs/development.md"])
def test_every_make_target_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    targets = set(re.findall(r"\bmake ([a-z][a-z-]+)\b", text))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page])

    assert links
    for link in links:
        assert (ROOT / link).exists(), link
