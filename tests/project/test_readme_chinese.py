"""README.zh-CN.md has the same sections, commands, links and names as README.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

# The Chinese heading of each section, in the order of README.md.
HEADINGS = {
    "# rankd": "# rankd",
    "## Two commands": "## 两条命令",
    "## The client you have": "## 用你手上的客户端",
    "## From Python": "## 在 Python 中使用",
    "## Without a server": "## 不启动服务器",
    "## How good is it on your data?": "## 在你的数据上效果如何？",
    "## What you can rely on": "## 你可以信赖的",
    "## Settings": "## 设置",
    "## Speed": "## 速度",
    "## CUDA and Ascend, with vLLM": "## CUDA 与昇腾：使用 vLLM",
    "## Not there yet": "## 尚未完成",
    "## Working on rankd": "## 参与开发",
}


@dataclass(frozen=True)
class Section:
    """One section of a README.

    Attributes:
        blocks: code blocks.
        links: targets of links.
        names: inline code.
    """

    blocks: list[str]
    links: list[str]
    names: list[str]


def sections(text: str) -> dict[str, Section]:
    """Sections by heading."""
    # Without code blocks, in which `#` begins a comment.
    bare = FENCE.sub(lambda block: " " * len(block[0]), text)
    starts = [found.start() for found in re.finditer(r"^#+ ", bare, re.MULTILINE)]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        words = FENCE.sub("", text[start:end])
        found[words.splitlines()[0]] = Section(
            FENCE.findall(text[start:end]),
            sorted(re.findall(r"\]\(([^)]+)\)", words)),
            sorted(set(re.findall(r"`([^`]+)`", words))),
        )
    return found


ENGLISH = sections((ROOT / "README.md").read_text(encoding="utf-8"))
CHINESE = sections((ROOT / "README.zh-CN.md").read_text(encoding="utf-8"))


def test_sections_blocks_links_and_names_are_found() -> None:
    assert len(ENGLISH) > 5
    for kind in ("blocks", "links", "names"):
        assert any(getattr(section, kind) for section in ENGLISH.values()), kind


def test_the_sections_are_translated_in_the_same_order() -> None:
    unknown = [heading for heading in ENGLISH if heading not in HEADINGS]
    assert not unknown, f"new in README.md: translate these and add them to HEADINGS: {unknown}"

    expected = [HEADINGS[heading] for heading in ENGLISH]
    assert list(CHINESE) == expected, "the sections of README.zh-CN.md differ from README.md"


@pytest.mark.parametrize("heading", ENGLISH)
@pytest.mark.parametrize("what", ["blocks", "links", "names"])
def test_a_section_has_the_same_commands_links_and_names(heading: str, what: str) -> None:
    translated = HEADINGS.get(heading, heading)
    ours = getattr(ENGLISH[heading], what)
    theirs = getattr(CHINESE.get(translated, Section([], [], [])), what)
    # Each README links the other.
    theirs = ["README.zh-CN.md" if one == "README.md" else one for one in theirs]

    missing = [one for one in ours if one not in theirs]
    extra = [one for one in theirs if one not in ours]
    assert not missing, f"{translated} of README.zh-CN.md lacks these {what}: {missing}"
    assert not extra, f"{translated} of README.zh-CN.md has these {what}, README.md not: {extra}"
    assert ours == theirs, f"{what} in another order or number under {translated}"
