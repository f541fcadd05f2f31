"""Imports point down: from the command line through app, batches and dialects to the engines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rankd

HOUSE = Path(rankd.__file__).parent

# From the street to the foundation. A room may import what stands in a lower row,
# or its own parts; never its neighbours in the same row.
FLOORS: list[dict[str, set[str]]] = [
    {
        "command line": {
            *("__main__", "parser", "server", "http11", "offline", "probe", "tls", "notify"),
            *("screen", "waiting", "completion", "report"),
        }
    },
    {"evaluation": {"evaluation"}},
    {"app": {"app"}},
    {"batches": {"batches"}, "ui": {"ui"}},
    {"door": {"door"}, "tracing": {"tracing"}, "ops": {"ops"}, "dialects": {"dialects"}},
    {
        "ranker": {
            "ranker",
            "desk",
            "profiles",
            "selfcheck",
            "admission",
            "limits",
            "cache",
            "redis_cache",
            "flights",
            "provenance",
            "billing",
        }
    },
    {"engines": {"engines"}, "prompts": {"prompts"}},
    {"settings": {"settings", "tables", "checkpoint", "download"}},
    {
        "foundation": {"metrics", "errors", "types", "loading", "timeline", "logs", "terminal"},
        "client": {"client"},
    },
    {"version": {"__init__"}},
]
ROOMS = {part: room for floor in FLOORS for room, parts in floor.items() for part in parts}
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}

# Heavy libraries, and the only places that may import each.
HEAVY: dict[str, str | tuple[str, ...]] = {
    "torch": "engines/native",
    "safetensors": "engines/native",
    "numpy": ("engines/native", "evaluation"),
    "transformers": "",
    "vllm": "engines/vllm",
    "httpx": ("client", "ui"),
    "gradio": "ui",
    "scipy": "evaluation",
    "matplotlib": "evaluation",
    "ir_measures": "evaluation",
    "bm25s": "evaluation",
    "redis": ("redis_cache", "limits"),
    "sqlite3": "batches",
    "python_multipart": "batches",
    "opentelemetry": "tracing",
    "pythonjsonlogger": "logs",
}


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def imports(module: Path) -> set[str]:
    """Every module imported anywhere in a file, in its functions too."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "rankd":
            found |= {f"rankd.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part_of(module: str) -> str:
    """`rankd.door.body` → `door`; `rankd.__version__` → `__init__`."""
    part = module.split(".")[1] if "." in module else "__init__"
    return part if part in ROOMS else "__init__"


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_point_down(module: Path) -> None:
    inside = module.relative_to(HOUSE)
    room = ROOMS.get(inside.parts[0].removesuffix(".py"), "builtin")
    wrong = [
        name
        for name in imports(module)
        if name.startswith("rankd")
        and ROOMS[part_of(name)] != room
        and (room == "builtin" or LEVEL[ROOMS[part_of(name)]] <= LEVEL[room])
    ]

    assert not wrong, f"{inside} ({room}) imports up or sideways: {wrong}"


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_heavy_libraries_stay_in_their_engine(module: Path) -> None:
    inside = module.relative_to(HOUSE).as_posix()
    wrong = [
        name
        for name in imports(module)
        if (library := name.split(".")[0]) in HEAVY
        and not (HEAVY[library] and inside.startswith(HEAVY[library]))
    ]

    assert not wrong, f"{inside} imports {wrong}"


def test_every_part_of_the_house_has_a_room() -> None:
    parts = {path.relative_to(HOUSE).parts[0].removesuffix(".py") for path in modules()}

    assert parts - {"builtin"} <= set(ROOMS)
