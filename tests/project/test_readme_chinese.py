"""The Chinese pages use the agreed words, and explain their code blocks in Chinese."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.zh-CN.md", *sorted((ROOT / "docs/zh").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CHINESE = re.compile(r"[一-鿿]")

# Word by word translations, and what to write instead.
WORDS = {
    "方言": "接口格式",
    "房间": "模块",
    "说话": "注入",
    "改装": "改用",
    "具名指令": "预设指令",
    "测出": "标定",
    "仪表板": "看板",
}


def test_the_pages_of_the_documentation_are_there() -> None:
    names = {page.stem for page in PAGES}

    assert {"quickstart", "clients", "prompt", "ascend", "faq"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_word_is_translated_word_by_word(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert {word: better for word, better in WORDS.items() if word in text} == {}
    # An answer of the model is 回答; that of HTTP is 响应 or 结果.
    assert re.findall(r".*回答.*", text.replace("只允许回答 `yes`", "")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_comments_in_code_are_chinese(page: Path) -> None:
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    assert blocks

    comments = [
        comment
        for language, code in blocks
        if language in ("bash", "python")
        for comment in re.findall(r"(?:^|  )# (.*)$", code, re.MULTILINE)
    ]
    # Code that is commented out, and the output that a test compares.
    code = re.compile(r'^(body = |        "documents"|\d+$)')
    assert [it for it in comments if not CHINESE.search(it) and not code.match(it)] == []


def test_mirrors_and_migration_come_before_the_table_of_clients() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    order = [
        "PIP_INDEX_URL=",
        "HF_ENDPOINT=",
        "--modelscope",
        "## 昇腾 NPU",
        "## 从 vLLM / vllm-ascend 迁移：不要再自己拼提示词",
        "## 直接使用现有客户端",
    ]

    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_each_page_links_the_other_language() -> None:
    english = (ROOT / "README.md").read_text(encoding="utf-8")

    assert "[中文](README.zh-CN.md)" in english
    assert "[English](README.md)" in PAGES[0].read_text(encoding="utf-8")
