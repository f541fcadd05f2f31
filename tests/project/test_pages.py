"""What the pages of docs/ tell to type works, and what they show is what comes out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from test_readme import HOST, ROOT, paste

import configuration
from rankd.config.settings import Settings
from rankd.prompts import qwen3
from rankd.prompts.tokenizer import Tokenizer
from support.checkpoints import qwen_tokenizer
from support.servers import Server, serving

# Blocks that say `elsewhere` need containers or devices, or are `make serve` itself.
PAGES = ("quickstart", "prompt", "faq", "ascend", "index", "configuration")
BLOCK = re.compile(r"```(bash|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A command, or a program, and what the page says that it prints."""

    page: str
    language: str
    code: str
    shown: str

    def __str__(self) -> str:
        return f"{self.page}: {self.code.splitlines()[0][:50]}"


def blocks() -> list[Block]:
    return [
        Block(page, found[1], found[2], found[3] or "")
        for page in PAGES
        for found in BLOCK.finditer((ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
        if "bench/prompt.py" not in found[2]  # It has a test of its own.
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@cache
def outcome(language: str, code: str, url: str) -> str:
    """What it prints; two pages may show the same command."""
    code = code.replace(HOST, url)
    if language == "python":
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    code = re.sub(r"^rankd ", ".venv/bin/rankd ", code, flags=re.MULTILINE)
    # Whether a server would start with these settings, without one.
    return paste(re.sub(r"(rankd serve .*?)( --print-config)?\n", r"\1 --print-config\n", code))


def differences(shown: str, printed: str) -> list[str]:
    """Lines of what is shown that were not printed; `…` stands for anything.

    Numbers with a point need to agree to their third digit: the last ones are the processor's.
    """
    return [line for line in shown.splitlines() if line and not _is_in(line, printed)]


def _is_in(line: str, printed: str) -> bool:
    parts = [
        r"(\d+\.\d+)" if number else ".*?" if part == "…" else re.escape(part)
        for part, number in ((it[0], it[1]) for it in re.finditer(r"(\d+\.\d+)|…|[^…\d]+|\d", line))
    ]
    said = [float(number) for number in re.findall(r"\d+\.\d+", line)]
    return any(
        [float(number) for number in found.groups()] == pytest.approx(said, rel=5e-3, abs=5e-4)
        for found in re.finditer("".join(parts), printed)
    )


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_a_block_prints_what_stands_below_it(block: Block, server: Server) -> None:
    printed = outcome(block.language, block.code, server.url)

    missing = differences(block.shown, printed)
    assert not missing, f"{block.page}.md shows {missing}, but this was printed:\n{printed}"


def test_the_comparison_notices_another_number_and_another_word() -> None:
    assert differences("score 0.…", "score 0.1234\n") == []
    assert differences("right 0.9878 ok", "right 0.9879 ok") == []
    assert differences("right 0.9878 ok", "right 0.9978 ok") == ["right 0.9878 ok"]
    assert differences("right 0.9878 ok", "right 0.9878 no") == ["right 0.9878 ok"]


def test_the_table_of_wrong_prompts_is_what_the_script_prints() -> None:
    page = (ROOT / "docs/prompt.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if re.match(r"\| .* of 70 ", line)]

    ended = subprocess.run(
        [sys.executable, "bench/prompt.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )

    assert len(shown) == 6
    assert differences("\n".join(shown), ended.stdout) == []


def test_the_prompt_on_the_page_is_the_one_that_is_built() -> None:
    page = (ROOT / "docs/prompt.md").read_text(encoding="utf-8")
    asked = qwen3.prefix_text(Settings().instruction, "What is the capital of China?")
    built = (
        qwen3.PREFIX + asked + qwen3.suffix_text("The capital of China is Beijing.") + qwen3.SUFFIX
    )

    assert f"```text\n{built}```" in page


def test_the_ids_on_the_page_are_those_of_qwens_tokenizer(tmp_path: Path) -> None:
    qwen_tokenizer(tmp_path)
    tokenizer = Tokenizer(json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8")))
    page = (ROOT / "docs/prompt.md").read_text(encoding="utf-8")
    rows = [row.split("|")[2].strip(" …") for row in page.splitlines() if row.startswith("| ")]

    for text in (
        qwen3.PREFIX,
        "<Instruct>:",
        "\n<Query>:",
        "\n<Document>:",
        qwen3.SUFFIX,
    ):
        assert " ".join(map(str, tokenizer.encode_template(text))) in rows, text
    assert f"yes {tokenizer.single('yes')}, no {tokenizer.single('no')}" in page
    assert tokenizer.encode_template("?\n") == [5267]


# Flags of commands, which are no settings.
OURS = {"--against-instruction", "--config", "--print-config", "--url"}
FLAG = re.compile(r"`(--[a-z][a-z-]+)[ =`]")


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    # Flags of others stand in the rows about them.
    ours = re.sub(r"^\| (vLLM|SGLang|card) .*$", "", text, flags=re.MULTILINE)
    known = OURS | set(FLAG.findall(configuration.page()))

    assert set(FLAG.findall(ours)) - known == set()
