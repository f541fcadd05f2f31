"""The registry of engines, and lists elsewhere that must agree with it."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from rankd.cli.report import EngineReport
from rankd.config.settings import Settings
from rankd.engines.registry import ENGINES, EngineSpec

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


def test_the_setting_engine_accepts_auto_and_every_engine_of_the_registry() -> None:
    # settings.py has its own list, because config may not import engines.
    assert get_args(Settings.model_fields["engine"].annotation) == ("auto", *ENGINES)


def test_the_schema_of_check_lists_every_engine() -> None:
    name = EngineReport.model_json_schema()["properties"]["name"]

    assert (name["type"], name["enum"]) == ("string", [*ENGINES])


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_engine_can_be_opened_and_its_extra_installs_its_library(engine: EngineSpec) -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]

    assert callable(importlib.import_module(engine.loader).open_engine)
    assert engine.description
    if engine.extra is None:
        assert engine.requires is None
        return
    assert engine.requires is not None
    assert any(package.startswith(engine.requires) for package in extras[engine.extra])
