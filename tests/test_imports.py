"""Imports follow the table of packages: each package imports only what stands below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rankd

ROOT = Path(rankd.__file__).parent

# From top to bottom. A module may import from lower rows and from its own package, never from
# a neighbour in the same row.
ROWS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("evaluation", "offline"),
    ("server",),
    ("batches", "ui"),
    ("dialects",),
    ("ranking",),
    ("engines", "prompts"),
    ("models",),
    ("telemetry",),
    ("config",),
    ("client", "context"),
    ("errors", "installing", "types"),
    ("__init__",),
)
ROW = {package: row for row, packages in enumerate(ROWS) for package in packages}

# Heavy or optional libraries, and the only places that may import each.
RESTRICTED: dict[str, tuple[str, ...]] = {
    "torch": ("engines/native",),
    "safetensors": ("engines/native",),
    "numpy": ("engines/native", "evaluation"),
    "transformers": (),
    "jinja2": ("prompts/chat_template",),
    "sentencex": ("prompts/sentences",),
    "vllm": ("engines/vllm",),
    "ray": ("engines/ray", "server/replica", "cli/ray", "offline/cluster"),
    "httpx": ("client",),
    "scipy": ("evaluation",),
    "sklearn": ("evaluation",),
    "matplotlib": ("evaluation",),
    "ir_measures": ("evaluation",),
    "bm25s": ("evaluation",),
    "pyarrow": ("offline/parquet_rows",),
    "redis": ("ranking/redis_cache", "ranking/rate_limits"),
    "sqlite3": ("batches",),
    "python_multipart": ("batches",),
    "opentelemetry": ("telemetry/tracing",),
    "pythonjsonlogger": ("telemetry/logs",),
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports(module: Path) -> set[str]:
    """Every module that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "rankd":
            found |= {f"rankd.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def package_of(module: str) -> str:
    """`rankd.server.run` → `server`; `rankd.__version__` → `__init__`."""
    part = module.split(".")[1] if "." in module else "__init__"
    return part if part in ROW else "__init__"


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(module: Path) -> None:
    inside = module.relative_to(ROOT)
    package = inside.parts[0].removesuffix(".py")
    wrong = [
        name
        for name in imports(module)
        if name.split(".")[0] == "rankd"
        and package_of(name) != package
        and ROW[package_of(name)] <= ROW[package]
    ]

    assert not wrong, f"{inside} imports from its own row or above: {wrong}"


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_restricted_libraries_stay_in_their_package(module: Path) -> None:
    inside = module.relative_to(ROOT).as_posix()
    wrong = [
        name
        for name in imports(module)
        if (library := name.split(".")[0]) in RESTRICTED
        and not inside.startswith(RESTRICTED[library] or "nowhere")
    ]

    assert not wrong, f"{inside} imports {wrong}"


def test_the_root_holds_the_packages_of_the_table_and_nothing_else() -> None:
    entries = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in modules()}

    assert entries == {package for row in ROWS for package in row}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """At import time; an import inside a function does not count."""
    graph = {name: direct_imports(path, name) for path in modules() for name in [dotted(path)]}
    assert len(graph) > 100

    assert not (circle := first_circle(graph)), " → ".join(circle)


def dotted(path: Path) -> str:
    parts = ("rankd", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def direct_imports(path: Path, own: str) -> set[str]:
    known = {dotted(module) for module in modules()}
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                child = f"{node.module}.{alias.name}"
                found.add(child if child in known else node.module)
    return (found & known) - {own}


def first_circle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if circle := visit(other, [*trail, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])
