"""Kubernetes objects as they would be applied, from kustomize and from the chart."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from rankd.config.settings import Settings
from rankd.config.sources import CONFIG_VARIABLE, load

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/rankd"

# Where Debian puts the Go libraries that its packages of them are built from.
GO_LIBRARIES = Path("/usr/share/gocode")

Object = dict[str, Any]


def program(name: str, where: str) -> str:
    """A program's path; without it the test is skipped, but fails in CI.

    Args:
        where: what to install it with.
    """
    return shutil.which(name) or missing(f"there is no {name}: {where}")


def missing(what: str) -> NoReturn:
    """Skip for want of it, or fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def kustomized(folder: Path) -> list[Object]:
    """What `kubectl apply -k` would apply."""
    kubectl = program("kubectl", "https://kubernetes.io/docs/tasks/tools/")
    return objects(_run(kubectl, "kustomize", str(folder)))


def composed(folder: Path, base: str, components: Iterable[str]) -> list[Object]:
    """As `kustomized`, of an overlay with components, as an operator would write it."""
    shutil.copytree(MANIFESTS, folder / "kubernetes")
    mine = folder / "kubernetes/mine"
    mine.mkdir()
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{base}"],
            "components": [f"../components/{name}" for name in components],
        }
    )
    (mine / "kustomization.yaml").write_text(text)
    return kustomized(mine)


def build_renderer(folder: Path) -> Path:
    """The program of render/, made of the libraries that Helm renders with."""
    go = program("go", "apt install golang-go")
    if not (GO_LIBRARIES / "src/github.com/Masterminds/sprig").is_dir():
        missing("apt install golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev")
    source = Path(__file__).parent / "render/main.go"
    environment = {"GO111MODULE": "off", "GOPATH": str(GO_LIBRARIES), "GOFLAGS": ""}
    _run(go, "build", "-o", str(folder / "render"), str(source), **environment)
    return folder / "render"


class Chart:
    """The chart, rendered without Helm.

    Args:
        renderer: what `build_renderer` made.
        folder: for files of values.
    """

    def __init__(self, renderer: Path, folder: Path) -> None:
        self._renderer = renderer
        self._folder = folder

    def files(
        self, values: Mapping[str, Any] | None = None, preset: str = "", release: str = "rankd"
    ) -> dict[str, str]:
        """Each template's text, by its path in the chart.

        Raises:
            subprocess.CalledProcessError: the chart refuses these values.
        """
        mine = self._folder / "mine.yaml"
        mine.write_text(yaml.safe_dump(dict(values or {})))
        presets = ["-values", str(CHART / f"values-{preset}.yaml")] if preset else []
        out = _run(str(self._renderer), *presets, "-values", str(mine), release, str(CHART))
        texts: dict[str, str] = json.loads(out)
        return {name.partition("/")[2]: text for name, text in texts.items()}

    def objects(
        self, values: Mapping[str, Any] | None = None, preset: str = "", release: str = "rankd"
    ) -> list[Object]:
        """As `helm install` would apply them, and the pod of `helm test`."""
        files = self.files(values, preset, release)
        return [
            one for name, text in files.items() if name.endswith(".yaml") for one in objects(text)
        ]


@cache
def the_chart() -> Chart:
    """Its renderer is built once for all tests."""
    folder = Path(tempfile.mkdtemp(prefix="rankd-chart-"))
    atexit.register(shutil.rmtree, folder)
    return Chart(build_renderer(folder), folder)


def _run(*command: str, **environment: str) -> str:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | environment,
    ).stdout


def objects(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


def the(kind: str, among: Iterable[Object]) -> Object:
    [found] = [one for one in among if one["kind"] == kind]
    return found


def pod(among: Iterable[Object]) -> Object:
    """What the Deployment makes: metadata and spec."""
    template: Object = the("Deployment", among)["spec"]["template"]
    return template


def container(among: Iterable[Object]) -> Object:
    [one] = pod(among)["spec"]["containers"]
    found: Object = one
    return found


def variables(among: Iterable[Object]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(among)["env"] if "value" in one}


def config(among: list[Object]) -> str:
    """The file that the pod mounts."""
    [volume] = [one for one in pod(among)["spec"]["volumes"] if one["name"] == "config"]
    [found] = [
        one
        for one in among
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == volume["configMap"]["name"]
    ]
    text: str = found["data"]["rankd.toml"]
    return text


def settings(among: list[Object]) -> Settings:
    """What rankd makes of the pod's file and variables.

    Raises:
        BadSettings: it would not start with them.
    """
    environment = {
        name: value for name, value in variables(among).items() if name != CONFIG_VARIABLE
    }
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(config(among))
        file.flush()
        return load({}, environment, Path(file.name))


def dockerfile(variant: str) -> str:
    return (ROOT / f"docker/{variant}.Dockerfile").read_text(encoding="utf-8")


def start_seconds(variant: str) -> int:
    """How long the image gives a server to start."""
    [found] = re.findall(r"--start-period=(\d+)s", dockerfile(variant))
    return int(found)
