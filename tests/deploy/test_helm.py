"""The chart as its users meet it: wrong values, what it says, and `helm test`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from kube import CHART, Chart, Object, objects, the, the_chart

import rankd
from support.servers import Server, serving

pytestmark = pytest.mark.deploy

VALUES = sorted(CHART.glob("values*.yaml"))
DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
ACCEPTS = jsonschema_rs.validator_for(SCHEMA).is_valid

WRONG: list[Object] = [
    {"replica": 3},
    {"replicas": "two"},
    {"replicas": -1},
    {"image": {"variant": "rocm"}},
    {"image": {"repository": "rankd:latest"}},
    {"image": {"tag": "a b"}},
    {"config": ""},
    {"config": {"model": "builtin"}},
    {"extraEnv": {"RANKD_THREADS": "1"}},
    {"extraEnv": [{"value": "1"}]},
    {"extraEnv": [{"name": "RANKD_THREADS", "value": 1}]},
    {"extraArgs": "--threads 1"},
    {"drainSeconds": "30s"},
    {"preStopSeconds": 0},
    {"startupSeconds": 5},
    {"keys": ["a"]},
    {"keys": {"list": ["a\nb"]}},
    {"keys": {"secret": "mine"}},
    {"models": {"accessMode": "ReadWriteAll"}},
    {"models": {"size": 30}},
    {"shm": "0"},
    {"home": "home/rankd"},
    {"resources": {"limits": {"nvidia.com/gpu": "one"}}},
    {"resources": {"gpus": 1}},
    {"service": {"port": 0}},
    {"service": {"type": "Cluster"}},
    {"ingress": {"enabled": "yes"}},
    {"ingress": {"hosts": []}},
    {"networkPolicy": {"from": {"podSelector": {}}}},
    {"podDisruptionBudget": {"maxUnavailable": "half"}},
    {"autoscaling": {"mode": "cpu"}},
    {"autoscaling": {"waitingTokens": 0}},
    {"autoscaling": {"prometheusAddress": "prometheus:9090"}},
    {"metrics": {"serviceMonitor": {"interval": 15}}},
    {"strategy": {"type": "Canary"}},
    {"nodeSelector": {"pool": 1}},
]


@pytest.fixture(scope="session")
def chart() -> Chart:
    return the_chart()


@pytest.mark.parametrize("file", VALUES, ids=lambda file: file.name)
def test_the_files_of_values_are_what_the_schema_wants(file: Path) -> None:
    assert ACCEPTS(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_a_wrong_value_is_refused_before_anything_is_installed(values: Object) -> None:
    assert not ACCEPTS(values)


def test_the_schema_knows_the_values_that_there_are_and_no_others() -> None:
    def names(value: Any, schema: Object, path: str = "") -> Iterator[str]:
        """Where the two differ, down to tables whose names are free."""
        if not isinstance(value, dict) or "properties" not in schema:
            return
        known = schema["properties"]
        assert schema["additionalProperties"] is False, path
        yield from (f"{path}.{name}" for name in value.keys() ^ known.keys())
        for name in value.keys() & known.keys():
            yield from names(value[name], known[name], f"{path}.{name}")

    # Helm's own name, and one that no default needs.
    assert set(names(DEFAULTS, SCHEMA)) == {".global", ".resources.claims"}


def test_every_value_is_used() -> None:
    templates = "".join(file.read_text() for file in CHART.glob("templates/**/*.*"))
    leaves = {f"{name}.{inner}" for name, table in DEFAULTS.items() for inner in inside(table)}

    assert set(re.findall(r"\.Values\.(\w+)", templates)) == set(DEFAULTS)
    for leaf in leaves:
        table, name = leaf.split(".")
        if table not in ("resources", "podSecurityContext", "securityContext", "strategy"):
            assert re.search(rf"\.{name}\b", templates), leaf


def inside(table: Any) -> list[str]:
    return list(table) if isinstance(table, dict) else []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"keys": {"existingSecret": "a", "list": ["b"]}},
            "keys.existingSecret and keys.list: give one of them",
        ),
        (
            {
                "keys": {"existingSecret": "a"},
                "metrics": {"serviceMonitor": {"enabled": True}},
            },
            "name a Secret with one in clientKey.secretName",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_the_reason(
    chart: Chart, values: Object, reason: str
) -> None:
    assert ACCEPTS(values)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        chart.files(values)

    assert reason in refused.value.stderr


@pytest.mark.parametrize("release", ["search", "rankd-blue", "a" * 53])
def test_two_releases_share_no_name(chart: Chart, release: str) -> None:
    named = {(one["kind"], one["metadata"]["name"]) for one in chart.objects(release=release)}
    keys = chart.objects({"keys": {"list": ["a"]}, "models": {"create": True}}, release=release)

    assert not named & {
        (one["kind"], one["metadata"]["name"]) for one in chart.objects(release="other")
    }
    assert keys
    assert all(len(one["metadata"]["name"]) <= 63 for one in keys)


def test_its_notes_say_what_to_do_next(chart: Chart) -> None:
    plain = chart.files()["templates/NOTES.txt"]
    keyed = chart.files({"keys": {"existingSecret": "a"}, "autoscaling": {"mode": "hpa"}})[
        "templates/NOTES.txt"
    ]

    assert "rollout status deployment/rankd" in plain
    assert "every client that reaches the Service can use it" in plain
    assert "clientKey.secretName" in keyed
    assert "custom.metrics.k8s.io" in keyed


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--api-key", "open-sesame") as server:
        yield server


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [("open-sesame", 0, "'index': 1"), ("open-barley", 1, "HTTP Error 401"), ("", 1, "401")],
)
def test_helm_test_passes_on_a_right_answer_and_only_then(
    chart: Chart, server: Server, key: str, status: int, said: str
) -> None:
    ended = helm_test(chart, server.url, key)

    assert ended.returncode == status
    assert said in ended.stdout + ended.stderr


def test_helm_test_fails_on_wrong_scores(chart: Chart) -> None:
    class Wrong(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            results = [{"index": index, "relevance_score": 0.5 - index / 4} for index in (0, 1)]
            self.wfile.write(json.dumps({"results": results}).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as wrong:
        threading.Thread(target=wrong.serve_forever, daemon=True).start()
        ended = helm_test(chart, f"http://127.0.0.1:{wrong.server_port}", "")
        wrong.shutdown()

    assert ended.returncode != 0
    assert "the scores are wrong" in ended.stderr


def helm_test(chart: Chart, url: str, key: str) -> subprocess.CompletedProcess[str]:
    """The pod's command, run here as its container would run it."""
    values = {"clientKey": {"secretName": "client"}} if key else {}
    [one] = the("Pod", chart.objects(values))["spec"]["containers"]
    given = {variable["name"]: variable.get("value", key) for variable in one["env"]}
    assert given["URL"] == "http://rankd:8000/v1/rerank"
    assert one["command"][0] == "python3"

    return subprocess.run(
        [sys.executable, *one["command"][1:], *one["args"]],
        env={**given, "URL": f"{url}/v1/rerank", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_helm_itself_makes_of_it_what_these_tests_saw(chart: Chart) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm; the chart was rendered with its libraries only")
    for preset in ("", "cpu", "cuda", "ascend"):
        values = ["-f", str(CHART / f"values-{preset}.yaml")] if preset else []
        subprocess.run([helm, "lint", "--strict", str(CHART), *values], check=True)
        text = subprocess.run(
            [helm, "template", "rankd", str(CHART), *values, "--kube-version", "1.33.0"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

        assert _sorted(objects(text)) == _sorted(chart.objects(preset=preset))


def _sorted(among: list[Object]) -> list[Object]:
    return sorted(among, key=lambda one: (str(one["kind"]), str(one["metadata"]["name"])))


def test_its_version_is_rankds() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert about["version"] == about["appVersion"] == rankd.__version__
