"""The TypeScript client builds, and its own tests pass against a running rankd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankd
from support.servers import serving

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"


def shell(*command: str, where: Path, **environment: str) -> str:
    ended = subprocess.run(
        command,
        cwd=where,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-8000:]
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the package, compiled."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js")
    copy = tmp_path_factory.mktemp("typescript") / "rankd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    shell("npm", "install", where=copy)
    shell("npm", "run", "build", where=copy)
    yield copy
    shutil.rmtree(copy)


@pytest.mark.clients
def test_its_own_tests_pass_against_a_running_rankd(built: Path) -> None:
    with serving("--engine", "fake") as server:
        output = shell("npm", "test", where=built, RANKD_URL=server.url)

    assert "skipped 0" in output


@pytest.mark.clients
def test_its_types_accept_the_readme_s_example_and_reject_mistakes(built: Path) -> None:
    example = (built / "README.md").read_text(encoding="utf-8").split("```ts\n")[1].split("```")[0]
    (built / "example.ts").write_text(example, encoding="utf-8")

    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"]
    shell("npx", "--no-install", "tsc", *options, "example.ts", "tests/types.ts", where=built)


@pytest.mark.clients
def test_only_the_build_is_published(built: Path) -> None:
    [package] = json.loads(shell("npm", "pack", "--dry-run", "--json", where=built))

    outside = {file["path"] for file in package["files"]} - {"README.md", "package.json"}
    assert outside
    assert all(path.startswith("dist/") for path in outside)


def test_its_version_is_the_server_s() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))

    assert package["version"] == rankd.__version__


def test_it_depends_on_nothing_and_on_one_exact_compiler() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))

    assert "dependencies" not in package
    [(name, version)] = package["devDependencies"].items()
    assert name == "typescript"
    assert version[0].isdigit()
    assert not (PACKAGE / "package-lock.json").exists()
