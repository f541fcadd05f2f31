"""Kubernetes objects: valid, and in keeping with what rankd does and where it writes."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml
from kube import (
    CHART,
    MANIFESTS,
    ROOT,
    Chart,
    Object,
    composed,
    config,
    container,
    dockerfile,
    kustomized,
    missing,
    pod,
    program,
    settings,
    start_seconds,
    the,
    the_chart,
    variables,
)

import rankd
from rankd.config.settings import Settings
from rankd.server.health import OPEN_PATHS
from rankd.telemetry import metrics

pytestmark = pytest.mark.deploy

FIRST, *_ = re.findall(r">=(\d+\.\d+)", (CHART / "Chart.yaml").read_text())

# Of each variant of the image: its configuration, and its overlay; builtin is the base.
CONFIGS = {
    "builtin": "builtin-cpu.toml",
    "cpu": "qwen3-0.6b-cpu.toml",
    "cuda": "qwen3-4b-cuda.toml",
    "ascend": "qwen3-8b-ascend.toml",
}
VLLM = ("cuda", "ascend")

# All that the chart can do beyond its presets, in a few installations.
ODD: dict[str, Object] = {
    "keys": {
        "keys": {"existingSecret": "mine", "secretKey": "all"},
        "clientKey": {"secretName": "client"},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
    "written-keys": {"keys": {"list": ["sha256:" + "0" * 64, "name = key"]}},
    "ingress": {
        "ingress": {"enabled": True, "hosts": ["a.example.com", "b.example.com"], "tlsSecret": "t"},
        "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
    },
    "hpa": {"autoscaling": {"mode": "hpa", "waitingTokens": 2_000_000}},
    "keda": {"autoscaling": {"mode": "keda", "waitingTokens": 2_000_000}},
    "bare": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "topologySpread": False,
        "metrics": {"annotations": False},
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    },
    "everything": {
        "nameOverride": "rerank",
        "image": {"repository": "registry.example.com:5000/team/rankd", "tag": "mine"},
        "imagePullSecrets": [{"name": "pull"}],
        "extraEnv": [{"name": "RANKD_MAX_DOCUMENTS", "value": "100"}],
        "extraArgs": ["--no-access-log", "--instruction=say: yes"],
        "drainSeconds": 120,
        "preStopSeconds": 20,
        "startupSeconds": 601,
        "models": {"existingClaim": "shared", "create": True},
        "hubToken": {"secretName": "hub"},
        "shm": "1Gi",
        "serviceAccount": {"name": "me", "annotations": {"a": "b"}},
        "networkPolicy": {"hub": True, "extraEgress": [{"ports": [{"port": 6379}]}]},
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "search"},
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    },
}

COMPONENTS = ("autoscaling", "keda", "keys", "servicemonitor")


@pytest.fixture(scope="session")
def chart() -> Chart:
    return the_chart()


@pytest.fixture(scope="session")
def made(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Object]]:
    """Objects by the name of an installation, such as `overlay cuda` or `chart hpa`."""

    @cache
    def make(name: str) -> list[Object]:
        how, what = name.split()
        if how == "chart":
            presets = ("cpu", "cuda", "ascend")
            return chart.objects(ODD.get(what), preset=what if what in presets else "")
        if how == "component":
            return composed(tmp_path_factory.mktemp(what), "overlays/cuda", [what])
        return kustomized(MANIFESTS / ("base" if what == "builtin" else f"overlays/{what}"))

    return make


BY_CONFIG = [f"{how} {what}" for how in ("overlay", "chart") for what in CONFIGS]
ALL = [*BY_CONFIG, *(f"chart {what}" for what in ODD), *(f"component {c}" for c in COMPONENTS)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("version", [FIRST, "latest"])
def test_every_object_is_what_its_api_wants(
    made: Callable[[str], list[Object]], name: str, version: str
) -> None:
    ours = [one for one in made(name) if one["kind"] not in ("ServiceMonitor", "ScaledObject")]

    for one in ours:
        validate(json.dumps(one), version)

    assert len(ours) >= 4


@cache
def validate(text: str, version: str) -> None:
    """Once for equal objects: each time it reads all of Kubernetes' definitions."""
    import kubernetes_validate

    release = kubernetes_validate.latest_version() if version == "latest" else version
    kubernetes_validate.validate(json.loads(text), release, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), "two"),
        (("spec", "template", "spec", "hostNetwork"), "no"),
        (("spec", "template", "spec", "container"), []),
    ],
    ids=str,
)
def test_an_object_that_its_api_does_not_want_is_noticed(
    made: Callable[[str], list[Object]], path: tuple[str, ...], value: object
) -> None:
    import kubernetes_validate

    wrong = copy.deepcopy(the("Deployment", made("overlay builtin")))
    inside = wrong
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value

    with pytest.raises(kubernetes_validate.ValidationError):
        validate(json.dumps(wrong), FIRST)


@pytest.mark.parametrize(
    "name", ["chart keys", "chart keda", "component keda", "component servicemonitor"]
)
def test_objects_of_operators_are_what_those_want(
    made: Callable[[str], list[Object]], name: str
) -> None:
    node = program("node", "Node.js 20 or newer")
    packages = Path(os.environ.get("KUBERNETES_MODELS", "none")) / "node_modules"
    if not packages.is_dir():
        missing("KUBERNETES_MODELS names no folder of npm packages: make test-deploy")
    foreign = [one for one in made(name) if one["kind"] in ("ServiceMonitor", "ScaledObject")]
    script = Path(__file__).parent / "operators.mjs"

    def judge(given: list[Object]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [node, str(script), str(packages.resolve())],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
        )

    assert len(foreign) == 1
    assert judge(foreign).returncode == 0, judge(foreign).stderr
    assert judge([{**foreign[0], "spec": {}}]).returncode != 0


@pytest.mark.parametrize("name", ALL)
def test_a_pod_is_killed_only_after_the_drain_and_prestop(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    drain = settings(objects).drain_seconds
    before = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]

    # A second signal, the engine's end, and an exit: what rankd itself needs after the drain.
    assert pod(objects)["spec"]["terminationGracePeriodSeconds"] >= before + drain + 15
    # Every kube-proxy and balancer must have heard: longer than a few readiness probes.
    readiness = container(objects)["readinessProbe"]
    assert before >= readiness["periodSeconds"] * readiness["failureThreshold"]


@pytest.mark.parametrize("name", BY_CONFIG)
def test_the_drain_is_the_one_that_rankd_has_by_itself(
    made: Callable[[str], list[Object]], name: str
) -> None:
    given = settings(made(name)).drain_seconds

    assert given == Settings().drain_seconds


@pytest.mark.parametrize("name", BY_CONFIG)
def test_a_model_has_as_long_to_load_as_the_image_gives_it(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects, variant = made(name), name.split()[1].replace("builtin", "cpu")
    probe = container(objects)["startupProbe"]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]

    assert seconds >= start_seconds(variant)
    assert the("Deployment", objects)["spec"]["progressDeadlineSeconds"] >= seconds + 60


@pytest.mark.parametrize("name", ALL)
def test_probes_ask_what_needs_no_key_on_the_port_that_rankd_opens(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    one = container(objects)
    probes = [one[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    [port] = one["ports"]

    assert [probe["path"] for probe in probes] == ["/readyz", "/readyz", "/livez"]
    assert {probe["path"] for probe in probes} <= OPEN_PATHS
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert port["containerPort"] == settings(objects).port
    assert the("Service", objects)["spec"]["ports"][0]["targetPort"] == port["name"]
    assert variables(objects)["RANKD_HOST"] == "0.0.0.0"


@pytest.mark.parametrize("name", BY_CONFIG)
def test_the_configuration_is_one_of_configs_and_rankd_takes_it(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects, variant = made(name), name.split()[1]
    taken = settings(objects)

    assert config(objects) == (ROOT / "configs" / CONFIGS[variant]).read_text()
    mounted = {mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert str(Path(variables(objects)["RANKD_CONFIG"]).parent) in mounted
    assert taken.host == "0.0.0.0"
    assert taken.device == {"cuda": "cuda", "ascend": "npu"}.get(variant, "cpu")
    assert taken.engine == ("vllm" if variant in VLLM else "native")


@pytest.mark.parametrize("name", BY_CONFIG)
def test_devices_and_shared_memory_are_asked_for_where_the_engine_wants_them(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects, variant = made(name), name.split()[1]
    limits = container(objects)["resources"]["limits"]
    devices = {limit: amount for limit, amount in limits.items() if "/" in limit}
    volumes = {volume["name"]: volume for volume in pod(objects)["spec"]["volumes"]}

    wanted = {"cuda": {"nvidia.com/gpu": 1}, "ascend": {"huawei.com/Ascend910": 1}}
    assert devices == wanted.get(variant, {})
    assert ("shm" in volumes) == (variant in VLLM)
    if variant in VLLM:
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert {"name": "shm", "mountPath": "/dev/shm"} in container(objects)["volumeMounts"]


@pytest.mark.parametrize("name", [n for n in ALL if "ascend" not in n])
def test_a_pod_has_no_rights_and_a_place_for_all_that_is_written(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    spec, one = pod(objects)["spec"], container(objects)
    variant = "cuda" if "cuda" in name or "component" in name else "cpu"
    [user] = re.findall(r"^USER (\d+)$", dockerfile(variant), re.MULTILINE)
    writable = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == int(user)
    assert spec["securityContext"]["fsGroup"] == int(user)
    assert spec["automountServiceAccountToken"] is False
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    [home] = re.findall(r" HOME=(\S+)", dockerfile(variant))
    assert {"/tmp", home} <= writable
    assert not {"HOME", "HF_HOME"} & set(variables(objects))


@pytest.mark.parametrize("name", ["overlay ascend", "chart ascend"])
def test_the_image_for_ascend_runs_as_the_user_it_has_and_mounts_the_drivers_of_the_page(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    mounts = {mount["name"]: mount for mount in container(objects)["volumeMounts"]}
    drivers = {
        volume["hostPath"]["path"]: mounts[volume["name"]]
        for volume in pod(objects)["spec"]["volumes"]
        if "hostPath" in volume
    }
    page = (ROOT / "docs/ascend.md").read_text(encoding="utf-8")
    named = re.findall(r"-v (/\S+?)/?:\S+?/?:ro", page)

    assert "\nUSER" not in dockerfile("ascend")
    assert pod(objects)["spec"]["securityContext"]["runAsUser"] == 0
    assert container(objects)["securityContext"]["allowPrivilegeEscalation"] is False
    assert drivers
    assert sorted(drivers) == sorted(named)
    assert all(mount["readOnly"] for mount in drivers.values())
    assert all(path == mount["mountPath"] for path, mount in drivers.items())


@pytest.mark.parametrize("name", ALL)
def test_what_selects_pods_selects_those_of_the_deployment_and_no_others(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    labels = pod(objects)["metadata"]["labels"]
    selectors = [
        (one["spec"].get("podSelector") or one["spec"]["selector"]).get("matchLabels")
        or one["spec"]["selector"]
        for one in objects
        if one["kind"] in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
    ]
    others = [one["metadata"]["labels"] for one in objects if one["kind"] == "Pod"]

    assert len(selectors) >= 2
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)


@pytest.mark.parametrize("name", BY_CONFIG)
def test_a_rollout_adds_before_it_takes_away_and_a_drained_node_takes_one_pod(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    rollout = the("Deployment", objects)["spec"]["strategy"]["rollingUpdate"]

    assert rollout == {"maxSurge": 1, "maxUnavailable": 0}
    assert the("Deployment", objects)["spec"]["replicas"] >= 2
    assert the("PodDisruptionBudget", objects)["spec"]["maxUnavailable"] == 1
    spread = pod(objects)["spec"]["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


@pytest.mark.parametrize("name", BY_CONFIG)
def test_only_models_of_the_hub_open_the_way_to_the_hub(
    made: Callable[[str], list[Object]], name: str
) -> None:
    rules = the("NetworkPolicy", made(name))["spec"]["egress"]
    ports = {port["port"] for rule in rules for port in rule["ports"]}

    assert ports == ({53} if "builtin" in name else {53, 443})


@pytest.mark.parametrize("name", ["chart hpa", "component autoscaling"])
def test_the_autoscaler_reads_a_gauge_of_rankds_that_the_adapter_offers(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    scaler = the("HorizontalPodAutoscaler", objects)["spec"]
    [target] = scaler["metrics"]
    adapter = yaml.safe_load((MANIFESTS / "monitoring/prometheus-adapter.yaml").read_text())
    [rule] = adapter["rules"]["custom"]
    [offered] = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])

    assert target["pods"]["metric"]["name"] in gauges()
    assert re.fullmatch(offered, target["pods"]["metric"]["name"])
    assert re.fullmatch(r"\d+", target["pods"]["target"]["averageValue"])
    assert "replicas" not in the("Deployment", objects)["spec"]
    assert scaler["scaleTargetRef"]["name"] == the("Deployment", objects)["metadata"]["name"]


@pytest.mark.parametrize("name", ["chart keda", "component keda"])
def test_keda_asks_for_a_gauge_of_rankds(made: Callable[[str], list[Object]], name: str) -> None:
    objects = made(name)
    [trigger] = the("ScaledObject", objects)["spec"]["triggers"]

    [gauge] = re.findall(r"sum\((\w+)\{", trigger["metadata"]["query"])
    assert gauge in gauges()
    assert re.fullmatch(r"\d+", trigger["metadata"]["threshold"])
    [pods] = re.findall(r'pod=~"([^"]+)"', trigger["metadata"]["query"])
    own = the("Deployment", objects)["metadata"]["name"]
    assert re.fullmatch(pods, f"{own}-7f9c8d6b5-x2x4z")
    assert not re.fullmatch(pods, f"{own}-gpu-7f9c8d6b5-x2x4z"), "those of another release"
    assert "replicas" not in the("Deployment", objects)["spec"]


@pytest.mark.parametrize("name", ["chart keys", "component servicemonitor"])
def test_prometheus_calls_the_job_as_the_alerts_do(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    label = the("ServiceMonitor", objects)["spec"]["jobLabel"]

    assert the("Service", objects)["metadata"]["labels"][label] == "rankd"


def gauges() -> set[str]:
    assert metrics.WAITING_TOKENS
    return {one.name for one in prometheus_client.REGISTRY.collect() if one.type == "gauge"}


@pytest.mark.parametrize("name", ["chart keys", "chart written-keys", "component keys"])
def test_keys_are_a_mounted_file_and_nothing_scrapes_without_one(
    made: Callable[[str], list[Object]], name: str
) -> None:
    objects = made(name)
    file = settings(objects).api_keys_file
    [mount] = [one for one in container(objects)["volumeMounts"] if one["name"] == "keys"]

    assert file is not None
    assert str(file.parent) == mount["mountPath"]
    # A mount of one file of a Secret never changes; one of all of them does.
    assert "subPath" not in mount
    assert "prometheus.io/scrape" not in pod(objects)["metadata"].get("annotations", {})
    written = [one for one in objects if one["kind"] == "Secret"]
    assert [one["stringData"] for one in written] == (
        [{"keys": f"sha256:{'0' * 64}\nname = key\n"}] if name == "chart written-keys" else []
    )


@pytest.mark.parametrize("what", CONFIGS)
def test_the_chart_and_the_manifests_make_the_same_pods(
    made: Callable[[str], list[Object]], what: str
) -> None:
    ours, charts = made(f"overlay {what}"), made(f"chart {what}")

    assert _plain(pod(charts)["spec"]) == _plain(pod(ours)["spec"])
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        assert _plain(the(kind, charts)["spec"]) == _plain(the(kind, ours)["spec"])
    if what != "builtin":
        claims = [the("PersistentVolumeClaim", made)["spec"] for made in (ours, charts)]
        assert claims[0] == claims[1]


def _plain(value: Any, key: str = "") -> Any:
    """Without the order of named things, the release's label, and the ConfigMap's digest."""
    if isinstance(value, dict):
        return {
            name: _plain(inner, name)
            for name, inner in value.items()
            if name != "app.kubernetes.io/instance" and not (key == "configMap" and name == "name")
        }
    if isinstance(value, list):
        return sorted(
            (_plain(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True)
        )
    return value


@pytest.mark.parametrize("name", BY_CONFIG)
def test_the_image_is_the_one_of_this_version(
    made: Callable[[str], list[Object]], name: str
) -> None:
    variant = name.split()[1].replace("builtin", "cpu")

    assert container(made(name))["image"] == f"rankd:{rankd.__version__}-{variant}"


def test_an_ingress_lets_through_what_rankd_takes(made: Callable[[str], list[Object]]) -> None:
    ingress = the("Ingress", made("chart ingress"))
    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"

    assert annotations[prefix + "proxy-body-size"] == f"{Settings().max_body_bytes >> 20}m"
    # As deploy/nginx has it: what is computed on one pod is not computed again on the next.
    patience = int(annotations[prefix + "proxy-read-timeout"])
    again = int(annotations[prefix + "proxy-next-upstream-timeout"])
    waits = Settings().engine_stuck_seconds + Settings().engine_wait_seconds
    assert patience >= waits > again
    assert int(annotations[prefix + "proxy-next-upstream-tries"]) == 2
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["a.example.com", "b.example.com"]


def test_rankd_runs_where_only_the_mounted_folders_can_be_written(tmp_path: Path) -> None:
    """Without capabilities, on a root that is remounted read-only."""
    tools = [program(name, "apt install util-linux") for name in ("unshare", "setpriv")]
    if os.geteuid() != 0 or subprocess.run([tools[0], "-m", "true"], check=False).returncode:
        pytest.skip("only root may remount, and not in every container")
    home = tmp_path / "home"
    home.mkdir()
    inside = f"""
        set -e
        mount --make-rprivate /
        mount --bind {home} {home}
        for at in $(findmnt -rno TARGET | grep -vE '^/(proc|sys|dev)(/|$)' | sort -u); do
            [ "$at" = {home} ] || mount -o remount,ro,bind "$at"
        done
        if touch {ROOT}/probe 2>/dev/null; then echo "it can be written" >&2; exit 3; fi
        exec {tools[1]} --no-new-privs \\
            --bounding-set -all --inh-caps -all \\
            env HOME={home} TMPDIR={home} HF_HOME={home}/models {shutil.which("timeout")} 100 \\
            {sys.executable} -m rankd check
    """
    done = subprocess.run(
        [tools[0], "-m", "bash", "-c", inside],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )

    assert done.returncode == 0, done.stderr
    assert "This set-up gives right scores." in done.stdout
