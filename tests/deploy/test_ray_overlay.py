"""The overlay for KubeRay: what its API wants, and fronts and replicas that fit each other."""

from __future__ import annotations

import copy
import json
import tomllib
from typing import Any

import pytest
import yaml
from kube import MANIFESTS, ROOT, Object, config, container, kustomized, pod, settings, the

from rankd.config.sources import load
from rankd.engines.ray.cluster import DEPLOYMENT

pytestmark = pytest.mark.deploy

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def closed(required: tuple[str, ...], **properties: Any) -> Object:
    """The schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# The fields of KubeRay's ray.io/v1 (its ray-operator/apis/ray/v1) that are used here. Pod templates
# are Kubernetes' own, and judged as pods.
TEMPLATE = closed(("spec",), metadata={"type": "object"}, spec={"type": "object"})
HEAD = closed(("rayStartParams", "template"), rayStartParams=TEXTS, template=TEMPLATE)
WORKERS = closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=TEMPLATE,
)
CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=TEXT,
    enableInTreeAutoscaling={"type": "boolean"},
    authOptions=closed(("mode",), mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_SERVICE = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata={"type": "object"},
    spec=closed((), serveConfigV2=TEXT, rayClusterConfig=CLUSTER),
)


@pytest.fixture(scope="module")
def made() -> list[Object]:
    return kustomized(MANIFESTS / "overlays/ray")


@pytest.fixture(scope="module")
def service(made: list[Object]) -> Object:
    return the("RayService", made)


@pytest.fixture(scope="module")
def served(service: Object) -> Object:
    """The only application of serveConfigV2."""
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    found: Object = application
    return found


def cluster_of(service: Object) -> Object:
    found: Object = service["spec"]["rayClusterConfig"]
    return found


def templates(service: Object) -> list[Object]:
    """Of the head's pod and of the workers'."""
    cluster = cluster_of(service)
    return [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]


def validate(one: Object, schema: Object) -> None:
    import jsonschema

    jsonschema.validate(one, schema)


def test_the_service_is_what_kuberay_wants(service: Object) -> None:
    validate(service, RAY_SERVICE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rayClusterConfig", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}),
        (("rayClusterConfig", "headGroup"), {}),
        (("serveConfigV2",), {}),
    ],
    ids=str,
)
def test_a_service_that_kuberay_does_not_want_is_noticed(
    service: Object, path: tuple[str, ...], value: object
) -> None:
    import jsonschema

    wrong = copy.deepcopy(service)
    inside = wrong["spec"]
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        validate(wrong, RAY_SERVICE)


def test_all_other_objects_and_the_pods_are_what_kubernetes_wants(
    made: list[Object], service: Object
) -> None:
    import kubernetes_validate

    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        for template in templates(service)
    ]
    others = [one for one in made if one is not service and one["kind"] != "RayService"]
    assert len(others) >= 7
    for one in [*others, *pods]:
        plain = json.loads(json.dumps(one))
        kubernetes_validate.validate(plain, kubernetes_validate.latest_version(), strict=True)


def test_fronts_and_replicas_have_the_same_model_limits_and_image(
    made: list[Object], service: Object, served: Object
) -> None:
    front = settings(made)
    replica = load(served["args"], environment={})

    assert front.engine == "ray"
    assert front.ray_app == served["name"]
    assert (replica.model, replica.max_tokens) == (front.model, front.max_tokens)
    assert replica.engine == "vllm"
    images = {template["spec"]["containers"][0]["image"] for template in templates(service)}
    assert images == {container(made)["image"]}
    assert tomllib.loads(config(made))


def test_replicas_have_no_http_and_a_gpu_each(service: Object, served: Object) -> None:
    configuration = yaml.safe_load(service["spec"]["serveConfigV2"])
    [deployment] = served["deployments"]
    [workers] = cluster_of(service)["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]

    assert configuration["proxy_location"] == "Disabled"
    assert served["route_prefix"] is None
    assert served["import_path"] == "rankd.server.replica:build"
    assert deployment["name"] == DEPLOYMENT
    assert deployment["ray_actor_options"]["num_gpus"] == limits["nvidia.com/gpu"] == 1
    assert "placement_group_bundles" not in deployment
    assert deployment["autoscaling_config"]["max_replicas"] <= workers["maxReplicas"]
    assert cluster_of(service)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_version_of_ray_is_the_one_that_rankd_wants(service: Object) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["ray"]
    [wanted] = [one for one in extra if one.startswith("ray[")]

    assert f">={cluster_of(service)['rayVersion'].removesuffix('.0')}," in wanted


def test_only_pods_of_the_cluster_and_fronts_reach_ray(made: list[Object], service: Object) -> None:
    [policy] = [
        one
        for one in made
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "rankd-ray"
    ]
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    [member] = policy["spec"]["ingress"][0]["from"]
    members = member["podSelector"]["matchLabels"].items()

    for template in templates(service):
        assert chosen <= template["metadata"]["labels"].items()
    for labels in (pod(made)["metadata"]["labels"], templates(service)[0]["metadata"]["labels"]):
        assert members <= labels.items()
    # All others may only submit applications.
    assert [rule["ports"] for rule in policy["spec"]["ingress"][1:]] == [
        [{"port": 8265, "protocol": "TCP"}]
    ]


def test_fronts_have_the_token_of_the_cluster(made: list[Object], service: Object) -> None:
    variables = {one["name"]: one for one in container(made)["env"]}

    auth = cluster_of(service)["authOptions"]
    assert auth["mode"] == variables["RAY_AUTH_MODE"]["value"] == "token"
    secret = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": auth["secretName"], "key": "auth_token"}
    head = f"{service['metadata']['name']}-head-svc:6379"
    assert settings(made).ray_address == head
    assert f"--address={head}" in container(made)["args"][0]
