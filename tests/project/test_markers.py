"""`make test` and `make test-all` leave out the markers that have a target of their own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
MARKERS = {marker.partition(":")[0] for marker in PYTEST["markers"]}


def test_make_test_runs_tests_without_markers() -> None:
    [expression] = re.findall(r"-m '(.*)'", PYTEST["addopts"])

    assert MARKERS
    assert set(expression.removeprefix("not ").split(" and not ")) == MARKERS


def test_make_test_all_adds_the_slow_tests() -> None:
    [elsewhere] = re.findall(r"^ELSEWHERE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert set(elsewhere.split(" or ")) == MARKERS - {"slow"}
