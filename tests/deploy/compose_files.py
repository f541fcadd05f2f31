"""docker/compose*.yaml, read as compose reads them when no variable is set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
FILES = [DOCKER / "compose.yaml", DOCKER / "compose.ascend.yaml"]


def read(file: Path) -> dict[str, Any]:
    """One file, with the defaults of its variables."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text())
    assert "$" not in re.sub(r"#.*", "", text), "a variable without a default"
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def binds(service: dict[str, Any]) -> dict[str, Path]:
    """What of this repository is mounted: where, and what."""
    pairs = (volume.split(":")[:2] for volume in service.get("volumes", []))
    return {inside: (DOCKER / outside).resolve() for outside, inside in pairs if outside[0] == "."}


def variables(service: dict[str, Any]) -> dict[str, str]:
    """Of the container; those without a value are passed on from the shell, and left out here."""
    given = service["environment"].items()
    return {name: str(value) for name, value in given if value is not None}
