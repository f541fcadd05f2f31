"""What autoscalers ask, asked of a real Prometheus that scrapes a live rankd."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kube import MANIFESTS, Chart, program, the, the_chart

from support.servers import serving

pytestmark = pytest.mark.deploy

# As Kubernetes' service discovery would say it of one pod.
POD = {
    "__meta_kubernetes_namespace": "search",
    "__meta_kubernetes_pod_name": "rankd-6c9f7d5b8-x2x4k",
    "__meta_kubernetes_pod_label_app_kubernetes_io_name": "rankd",
    "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true",
    "__meta_kubernetes_pod_annotation_prometheus_io_path": "/metrics",
}


@pytest.fixture(scope="session")
def chart() -> Chart:
    return the_chart()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """With the relabelling of monitoring/prometheus.yaml; the URL of its API."""
    binary = program("prometheus", "apt install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with serving("--engine", "fake") as server:
        host, port = server.url.removeprefix("http://").split(":")
        config = yaml.safe_load((MANIFESTS / "monitoring/prometheus.yaml").read_text())
        [job] = config["scrape_configs"]
        # Debian's Prometheus is built without Kubernetes; the rest of the job is as it is.
        del job["kubernetes_sd_configs"]
        job["scrape_interval"] = "1s"
        annotated = {**POD, "__meta_kubernetes_pod_annotation_prometheus_io_port": port}
        job["static_configs"] = [
            {"targets": [f"{host}:1"], "labels": annotated},
            {
                "targets": [server.url[7:]],
                "labels": {**POD, "__meta_kubernetes_pod_label_app_kubernetes_io_name": "nginx"},
            },
        ]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        mine = free_port()
        command = [
            binary,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{mine}",
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{mine}/api/v1/query"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def ask(prometheus: str, query: str) -> list[dict[str, Any]]:
    """The answer, once there is one."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        reply = answer_of(prometheus, query)
        assert reply.get("status") != "error", reply
        result: list[dict[str, Any]] = reply.get("data", {}).get("result", [])
        if result:
            return result
        time.sleep(0.5)
    raise AssertionError(f"nothing was ever found for {query}")


def answer_of(prometheus: str, query: str) -> dict[str, Any]:
    """Empty while Prometheus starts: it does not listen at first, then answers 503 as text."""
    try:
        response = httpx.get(prometheus, params={"query": query}, timeout=10)
    except httpx.TransportError:
        return {}
    answer: dict[str, Any] = {} if response.status_code == 503 else response.json()
    return answer


def test_the_scrape_finds_rankds_pods_only_and_names_them(prometheus: str) -> None:
    [found] = ask(prometheus, "up == 1")

    assert found["metric"]["namespace"] == "search"
    assert found["metric"]["pod"] == POD["__meta_kubernetes_pod_name"]
    assert found["metric"]["job"] == "rankd"


@pytest.mark.parametrize("series", ["rankd_waiting_tokens", "rankd_waiting_requests"])
def test_the_adapters_rule_finds_the_queue_of_each_pod(prometheus: str, series: str) -> None:
    adapter = yaml.safe_load(
        (Path(MANIFESTS) / "monitoring/prometheus-adapter.yaml").read_text(encoding="utf-8")
    )
    [rule] = adapter["rules"]["custom"]
    # As the adapter fills it in when an autoscaler asks for the pods of a namespace.
    query = (
        rule["metricsQuery"]
        .replace("<<.Series>>", series)
        .replace(
            "<<.LabelMatchers>>", f'namespace="search",pod=~"{POD["__meta_kubernetes_pod_name"]}"'
        )
        .replace("<<.GroupBy>>", "pod")
    )

    found = {one["metric"]["__name__"] for one in ask(prometheus, rule["seriesQuery"])}
    [value] = ask(prometheus, query)

    assert series in found
    assert value["metric"] == {"pod": POD["__meta_kubernetes_pod_name"]}
    assert float(value["value"][1]) == 0


def test_kedas_query_has_one_answer(prometheus: str, chart: Chart) -> None:
    scaler = the("ScaledObject", chart.objects({"autoscaling": {"mode": "keda"}}))
    [trigger] = scaler["spec"]["triggers"]
    written = (MANIFESTS / "components/keda/scaledobject.yaml").read_text(encoding="utf-8")
    [plain] = yaml.safe_load(written)["spec"]["triggers"]

    assert trigger["metadata"]["query"] == plain["metadata"]["query"]
    [answer] = ask(prometheus, trigger["metadata"]["query"].replace('"default"', '"search"'))
    assert float(answer["value"][1]) == 0
