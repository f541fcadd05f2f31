"""All files have the same version. With RELEASE_TAG (make release-check), it is the tag's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import rankd

ROOT = Path(__file__).parents[2]
TAG = os.environ.get("RELEASE_TAG")


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def versions() -> dict[str, str]:
    """The version in every file that contains it, by file."""
    chart = yaml.safe_load(read("deploy/helm/rankd/Chart.yaml"))
    base = yaml.safe_load(read("deploy/kubernetes/base/kustomization.yaml"))
    version_by_file = {
        "clients/typescript/package.json": json.loads(read("clients/typescript/package.json"))[
            "version"
        ],
        "Chart.yaml, version": chart["version"],
        "Chart.yaml, appVersion": chart["appVersion"],
        "kubernetes/base, labels": base["labels"][0]["pairs"]["app.kubernetes.io/version"],
    }
    for file in sorted((ROOT / "deploy/kubernetes").glob("**/kustomization.yaml")):
        for image in yaml.safe_load(file.read_text(encoding="utf-8")).get("images", []):
            version_by_file[f"{file.parent.name}, images"] = image["newTag"].rpartition("-")[0]
    for file in sorted((ROOT / "docker").glob("*.Dockerfile")):
        [version_by_file[file.name]] = re.findall(
            r'org\.opencontainers\.image\.version="([^"]*)"', file.read_text(encoding="utf-8")
        )
    return version_by_file


def test_images_and_kustomizations_have_versions() -> None:
    files = versions()

    assert {f"{device}.Dockerfile" for device in ("cpu", "cuda", "ascend")} <= set(files)
    assert any(file.endswith(", images") for file in files)


@pytest.mark.parametrize(("file", "version"), versions().items(), ids=list(versions()))
def test_the_version_equals_that_of_the_package(file: str, version: str) -> None:
    assert version == rankd.__version__, file


def test_pyproject_reads_the_version_from_the_package() -> None:
    project = tomllib.loads(read("pyproject.toml"))

    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/rankd/__init__.py"


@pytest.mark.skipif(TAG is None, reason="RELEASE_TAG is not set (make release-check)")
def test_the_tag_is_the_version() -> None:
    assert f"v{rankd.__version__}" == TAG


@pytest.mark.skipif(TAG is None, reason="RELEASE_TAG is not set (make release-check)")
def test_the_changelog_has_a_section_with_version_and_date() -> None:
    sections = re.split(r"^## ", read("CHANGELOG.md"), flags=re.MULTILINE)
    [section] = [text for text in sections if text.startswith(f"[{rankd.__version__}]")] or [""]

    assert re.match(r"\[[^]]+\] - \d{4}-\d{2}-\d{2}\n", section), (
        "no section with this version and a date"
    )
    assert re.search(r"^- ", section, re.MULTILINE)


def workflow(name: str) -> str:
    return read(f".github/workflows/{name}.yml")


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_run_only_make_and_ci_run_and_installs_of_uvicorn(name: str) -> None:
    jobs = yaml.safe_load(workflow(name))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    makefile = read("Makefile")

    assert commands
    for command in commands:
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), command
        else:
            allowed = ("git config ", ".venv/bin/python -m pip install 'uvicorn==")
            assert command == ".ci/run" or command.startswith(allowed), command


# Jobs that may do more than read the repository.
MORE_PERMISSIONS = {
    "ci": {},
    "release": {
        "publish": {"id-token": "write"},
        "images": {"contents": "read", "packages": "write"},
        "chart": {"contents": "read", "packages": "write"},
        "release": {"contents": "write"},
    },
}


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_have_minimal_permissions(name: str) -> None:
    parsed = yaml.safe_load(workflow(name))
    allowed = {job: one["permissions"] for job, one in parsed["jobs"].items()}

    assert allowed
    assert parsed["permissions"] == {}
    more = {job: what for job, what in allowed.items() if what != {"contents": "read"}}
    assert more == MORE_PERMISSIONS[name]


def test_ci_tests_all_python_versions_of_pyproject() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    low, high = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    tested = yaml.safe_load(workflow("ci"))["jobs"]["test"]["strategy"]["matrix"]["python"]

    assert tested == [f"3.{minor}" for minor in range(low, high)]


def test_the_oldest_and_the_newest_uvicorn_of_pyproject_are_tested() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    server = project["optional-dependencies"]["server"]
    [allowed] = [one for one in server if one.startswith("uvicorn")]
    oldest, above = map(int, re.findall(r"0\.(\d+)", allowed))
    steps = yaml.safe_load(workflow("ci"))["jobs"]["test"]["steps"]
    tested = re.findall(r"uvicorn==0\.(\d+)\.\*", "\n".join(step.get("run", "") for step in steps))

    assert tested == [str(oldest), str(above - 1)]


def test_the_wheel_is_tested_before_it_is_published() -> None:
    jobs = yaml.safe_load(workflow("release"))["jobs"]
    commands = [step.get("run", "") for step in jobs["build"]["steps"]]

    assert jobs["publish"]["needs"] == "build"
    assert (
        commands.index("make test-wheel")
        > commands.index('make release-check TAG="$GITHUB_REF_NAME"')
        > 0
    )


def test_a_release_has_an_image_for_each_dockerfile_after_the_tests() -> None:
    jobs = yaml.safe_load(workflow("release"))["jobs"]
    files = {file.name.removesuffix(".Dockerfile") for file in (ROOT / "docker").glob("*file")}

    assert set(jobs["images"]["strategy"]["matrix"]["device"]) == files
    assert jobs["images"]["needs"] == "build"
    assert jobs["chart"]["needs"] == ["publish", "images"]
    assert jobs["release"]["needs"] == "chart"


@pytest.mark.parametrize(
    ("device", "platforms"),
    [("cpu", "linux/amd64,linux/arm64"), ("cuda", "linux/amd64")],
)
def test_an_image_is_pushed_under_version_and_device(device: str, platforms: str) -> None:
    commands = dry_run("push-image", f"DEVICE={device}", "REGISTRY=registry.test/me")

    assert f"--file docker/{device}.Dockerfile" in commands
    assert f"--platform {platforms} " in commands
    assert f"--tag registry.test/me/rankd:{rankd.__version__}-{device} ." in commands


def test_the_chart_is_pushed_with_its_version() -> None:
    commands = dry_run("push-chart", "REGISTRY=registry.test/me")

    assert f"rankd-{rankd.__version__}.tgz oci://registry.test/me/charts" in commands


def dry_run(*arguments: str) -> str:
    """The commands that make would run, each on one line."""
    ended = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return re.sub(r"\s*\\\n\s*", " ", ended.stdout)


def test_the_cpu_image_installs_the_extras_of_all_settings() -> None:
    """vLLM's images contain both packages."""
    dockerfile = (ROOT / "docker/cpu.Dockerfile").read_text()
    [extras] = re.findall(r"'\.\[([\w,]+)\]'", dockerfile)

    assert {"native", "redis", "otel"} <= set(extras.split(","))
