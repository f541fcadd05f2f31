"""The commands on the pages of docs/ work, and print what the pages show."""

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

# Blocks marked `elsewhere` need containers or devices, or are `make serve`.
PAGES = (
    *("quickstart", "prompt", "faq", "ascend", "index", "configuration"),
    *("hardware", "installing", "reranking", "thresholds"),
    *("zh/quickstart", "zh/prompt", "zh/faq", "zh/ascend"),
)
BLOCK = re.compile(r"```(bash|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A command or program, and the output that the page shows."""

    page: str
    language: str
    code: str
    shown: str

    def __str__(self) -> str:
        return f"{self.page}: {self.code.splitlines()[0][:50]}"


def blocks() -> list[Block]:
    return [
        Block(page, match[1], match[2], match[3] or "")
        for page in PAGES
        for match in BLOCK.finditer((ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
        if not re.search(r"bench/(client_)?prompts?\.py", match[2])  # Have their own test.
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@cache
def outcome(language: str, code: str, url: str) -> str:
    """The output of a block. Cached, because two pages may show the same command."""
    code = code.replace(HOST, url)
    if language == "python":
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    code = re.sub(r"^rankd ", ".venv/bin/rankd ", code, flags=re.MULTILINE)
    # Check the settings without starting a server.
    return paste(re.sub(r"(rankd serve .*?)( --print-config)?\n", r"\1 --print-config\n", code))


def differences(shown: str, printed: str) -> list[str]:
    """The shown lines that were not printed; `…` matches anything.

    Decimal numbers need to agree in three digits: the others depend on the processor.
    """
    return [line for line in shown.splitlines() if line and not _is_in(line, printed)]


def _is_in(line: str, printed: str) -> bool:
    parts = [
        r"(\d+\.\d+)" if number else ".*?" if part == "…" else re.escape(part)
        for part, number in (
            (token[0], token[1]) for token in re.finditer(r"(\d+\.\d+)|…|[^…\d]+|\d", line)
        )
    ]
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
    return any(
        [float(number) for number in match.groups()] == pytest.approx(numbers, rel=5e-3, abs=5e-4)
        for match in re.finditer("".join(parts), printed)
    )


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(), ids=str)
def test_a_block_prints_the_output_below_it(block: Block, server: Server) -> None:
    printed = outcome(block.language, block.code, server.url)

    missing = differences(block.shown, printed)
    assert not missing, f"{block.page}.md shows {missing}, but this was printed:\n{printed}"


def test_differences_are_found_in_numbers_and_words() -> None:
    assert differences("score 0.…", "score 0.1234\n") == []
    assert differences("right 0.9878 ok", "right 0.9879 ok") == []
    assert differences("right 0.9878 ok", "right 0.9978 ok") == ["right 0.9878 ok"]
    assert differences("right 0.9878 ok", "right 0.9878 no") == ["right 0.9878 ok"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "row", "count"),
    [
        ("prompt.py", r"\| .* of 70 .* \d\.\d+ \|$", 6),
        ("client_prompts.py", r"\| .* of 70 .* of 70 \|$", 16),
    ],
)
def test_the_tables_of_wrong_prompts_are_printed_by_the_scripts(
    script: str, row: str, count: int
) -> None:
    page = (ROOT / "docs/prompt.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if re.match(row, line)]

    ended = subprocess.run(
        [sys.executable, f"bench/{script}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )

    assert len(shown) == count
    assert differences("\n".join(shown), ended.stdout) == []


def test_the_prompt_on_the_page_is_the_built_one() -> None:
    page = (ROOT / "docs/prompt.md").read_text(encoding="utf-8")
    question = qwen3.prefix_text(Settings().instruction, "What is the capital of China?")
    built = (
        qwen3.PREFIX
        + question
        + qwen3.suffix_text("The capital of China is Beijing.")
        + qwen3.SUFFIX
    )

    assert f"```text\n{built}```" in page


def test_the_token_ids_on_the_page_are_those_of_qwens_tokenizer(tmp_path: Path) -> None:
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


# Flags of commands that are not settings, and of vLLM's command.
COMMAND_FLAGS = {
    *("--against-instruction", "--config", "--modelscope", "--precision", "--print-config"),
    "--url",
    *("--chat-template", "--hf-overrides", "--runner", "--tensor-parallel-size"),
}
FLAG = re.compile(r"`(--[a-z][a-z-]+)[ =`]")


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_on_a_page_exists(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    # Rows about other servers contain their flags.
    own = re.sub(r"^\| (vLLM|SGLang|card|型号) .*$", "", text, flags=re.MULTILINE)
    settings = set(FLAG.findall(configuration.page()))

    assert settings
    assert set(FLAG.findall(own)) - settings - COMMAND_FLAGS == set()
