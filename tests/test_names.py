"""Class names are unique, and files and functions stay small."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from pathlib import Path

import rankd
import rankd.client

ROOT = Path(rankd.__file__).parent

MAX_FILE_LINES = 500
MEDIAN_FILE_LINES = 150
MAX_FUNCTION_LINES = 60
MEDIAN_FUNCTION_LINES = 8
P90_FUNCTION_LINES = 20

# Public names of the client may repeat names of the server: `RerankRequest` is both a body that
# the client sends and a body that the server reads.
REPEATABLE = frozenset(rankd.client.__all__)


def sources() -> dict[str, str]:
    """The text of every module, by its path below `src/rankd`."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(ROOT.rglob("*.py"))
    }
    assert len(files) > 100
    return files


def function_lines() -> dict[str, int]:
    """Lines of each function, decorators left out."""
    lines = {
        f"{file}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for file, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lines) > 1000
    return lines


def test_class_names_are_unique() -> None:
    files = defaultdict(list)
    for file, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(file)

    repeated = {name: found for name, found in files.items() if len(found) > 1}
    wrong = {
        name: found
        for name, found in repeated.items()
        if name not in REPEATABLE or len([file for file in found if "client/" not in file]) > 1
    }

    assert not wrong


def test_files_are_short() -> None:
    lines = {file: len(text.splitlines()) for file, text in sources().items()}

    assert {file: count for file, count in lines.items() if count > MAX_FILE_LINES} == {}
    assert statistics.median(lines.values()) <= MEDIAN_FILE_LINES


def test_functions_are_short() -> None:
    lines = function_lines()

    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}
    assert statistics.median(lines.values()) <= MEDIAN_FUNCTION_LINES
    assert statistics.quantiles(lines.values(), n=10)[-1] <= P90_FUNCTION_LINES
