"""docker/compose*.yaml, the manifests and the chart: their containers, run on the built images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compose_files import DOCKER, binds, read, variables
from kube import MANIFESTS, Object, container, kustomized, pod, the, the_chart

from support import vllm_image
from support.containers import REQUEST, Container, Image, Options, output, running

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]

KEY = "a-key-of-this-test"


def of_compose(service: dict[str, Any], volume: Path, **environment: str) -> Options:
    """The service as compose would run it. `init: true` is left out: rankd is pid 1 here."""
    shown = [f"{outside}:{inside}:ro" for inside, outside in binds(service).items()]
    return Options(
        volumes=[f"{volume}:/data", *shown],
        tmpfs=service.get("tmpfs", ()),
        read_only=service.get("read_only", False),
        drop_capabilities=service.get("cap_drop") == ["ALL"],
        environment={**variables(service), **environment},
    )


def check_serving(image: Image, service: dict[str, Any], options: Options) -> None:
    with running(image, *service["command"], options=options) as server:
        server.wait_until_ready()
        assert server.ranked() == [1, 0]
        health = server.execute(*service["healthcheck"]["test"][1:])

        assert health.returncode == 0, health.stderr
        assert server.stop() == 0, server.output


def test_compose_on_the_cpu(cpu: Image, volume: Path) -> None:
    service = read(DOCKER / "compose.yaml")["services"]["rankd-cpu"]
    options = of_compose(service, volume)
    assert options.read_only
    assert options.drop_capabilities
    check_serving(cpu, service, options)


def test_compose_with_vllm(cuda: Image, volume: Path) -> None:
    """But for the device, and with a model that is on this machine."""
    service = read(DOCKER / "compose.yaml")["services"]["rankd-cuda"]
    here = {"RANKD_DEVICE": "cpu", "RANKD_MODEL": "builtin", "RANKD_MAX_TOKENS": "2048"}
    plain = of_compose(service, volume, **here)
    options = replace(plain, volumes=[*plain.volumes, vllm_image.volume()])
    check_serving(cuda, service, options)


def test_compose_on_ascend_without_a_device(ascend: Image, volume: Path) -> None:
    [service] = read(DOCKER / "compose.ascend.yaml")["services"].values()
    plain = of_compose(service, volume, RANKD_MODEL="builtin")
    options = replace(plain, volumes=[*plain.volumes, *vllm_image.ascend_volumes()])
    status, printed = output(ascend, *service["command"], options=options)

    assert status == 2, printed
    assert "cannot be loaded: No module named 'torch_npu'" in printed
    assert "Traceback" not in printed


def manifests() -> list[Object]:
    return kustomized(MANIFESTS / "base")


def chart() -> list[Object]:
    return the_chart().objects()


def chart_with_keys() -> list[Object]:
    values = {"keys": {"list": [KEY]}, "clientKey": {"secretName": "client"}}
    return the_chart().objects(values)


@pytest.mark.parametrize("objects", [manifests, chart, chart_with_keys])
def test_a_pod_starts_answers_its_probes_and_stops(
    cpu: Image, objects: Callable[[], list[Object]]
) -> None:
    made = objects()
    one = container(made)
    keyed = {"Authorization": f"Bearer {KEY}"} if objects is chart_with_keys else {}
    with of_pod(made) as options, running(cpu, *one["args"], options=options) as server:
        server.wait_until_ready()
        assert server.ranked(**keyed) == [1, 0]
        assert options.read_only
        assert options.user == "1000:1000"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert one[probe]["httpGet"]["port"] == "http"
            assert server.request("GET", one[probe]["httpGet"]["path"]).status_code == 200
        if objects is chart_with_keys:
            assert server.request("POST", "/v1/rerank", json=REQUEST).status_code == 401
        assert helm_test(made, server) == (0 if the_test(made) else None)
        assert server.stop() == 0, server.output


@contextmanager
def of_pod(objects: list[Object]) -> Iterator[Options]:
    """The pod's container as a kubelet would run it, with folders for its volumes."""
    one, spec = container(objects), pod(objects)["spec"]
    context = spec["securityContext"]
    with tempfile.TemporaryDirectory(prefix="rankd-pod-") as folder:
        os.chmod(folder, 0o755)
        made = {
            volume["name"]: _made(Path(folder), volume, objects, context["fsGroup"])
            for volume in spec["volumes"]
        }
        yield Options(
            user=f"{context['runAsUser']}:{context['runAsGroup']}",
            volumes=[_mount(made[mount["name"]], mount) for mount in one["volumeMounts"]],
            read_only=one["securityContext"]["readOnlyRootFilesystem"],
            drop_capabilities=one["securityContext"]["capabilities"]["drop"] == ["ALL"],
            environment={each["name"]: each["value"] for each in one["env"] if "value" in each},
        )


def _made(folder: Path, volume: Object, objects: list[Object], group: int) -> Path:
    """A volume's folder with its files, for the group of the pod."""
    path: Path = folder / volume["name"]
    path.mkdir()
    for name, text in _files(volume, objects).items():
        (path / name).write_text(text)
        os.chown(path / name, 0, group)
        (path / name).chmod(volume.get("secret", {}).get("defaultMode", 0o644))
    os.chown(path, 0, group)
    path.chmod(0o2777)
    return path


def _files(volume: Object, objects: list[Object]) -> dict[str, str]:
    for kind, table, key, data in (
        ("configMap", "ConfigMap", "name", "data"),
        ("secret", "Secret", "secretName", "stringData"),
    ):
        if kind in volume:
            named = [one for one in objects if one["kind"] == table]
            [found] = [one for one in named if one["metadata"]["name"] == volume[kind][key]]
            files: dict[str, str] = found[data]
            return files
    assert {"emptyDir", "persistentVolumeClaim"} & set(volume), volume
    return {}


def _mount(outside: Path, mount: Object) -> str:
    return f"{outside}:{mount['mountPath']}" + (":ro" if mount.get("readOnly") else "")


def the_test(objects: list[Object]) -> Object | None:
    """The pod of `helm test`, which the manifests do not have."""
    return the("Pod", objects) if any(one["kind"] == "Pod" for one in objects) else None


def helm_test(objects: list[Object], server: Container) -> int | None:
    """Run the command of `helm test` beside the server; gives its exit status."""
    test = the_test(objects)
    if test is None:
        return None
    [one] = test["spec"]["containers"]
    given = {each["name"]: each.get("value", KEY) for each in one["env"]}
    given["URL"] = "http://127.0.0.1:8000/v1/rerank"
    pairs = [f"{name}={value}" for name, value in given.items()]
    done = server.execute("env", *pairs, *one["command"], *one["args"])
    assert done.returncode == 0, done.stderr
    return done.returncode
