"""The page's JavaScript modules, tested in Node.js: parsing, CSV, links, labels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.snippets import STATIC, node

MODULES = sorted((Path(__file__).parent / "modules").glob("*.test.mjs"))
SOURCES = sorted(STATIC.glob("*.js"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_the_modules_of_the_page_pass_their_tests(module: Path) -> None:
    ended = subprocess.run(
        [node(), "--test", "--test-reporter=tap", str(module)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout
    assert int(re.findall(r"^# pass (\d+)$", ended.stdout, re.MULTILINE)[0]) >= 8


def test_no_module_writes_markup_or_evaluates_text() -> None:
    assert len(SOURCES) > 10
    for source in SOURCES:
        code = source.read_text(encoding="utf-8")
        for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert name not in code, source.name


def test_files_and_functions_of_the_page_stay_small() -> None:
    for source in SOURCES:
        lines = source.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, source.name
        assert max(map(len, lines)) <= 160 or source.name == "labels.js", source.name
