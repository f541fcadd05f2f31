"""What the files of dashboard, rules and docs say of metrics, without a Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import rankd.telemetry.metrics  # noqa: F401  # Registers them.

ROOT = Path(__file__).parent.parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/rankd.json").read_text(encoding="utf-8"))
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
DOCUMENT = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


TARGETS = [(panel["title"], target) for panel in panels() for target in panel.get("targets", [])]


def own() -> dict[str, str]:
    """Our metrics as /metrics shows their names, and their types."""
    return {
        one.name
        + ("_total" if one.type == "counter" else "_info" if one.type == "info" else ""): one.type
        for one in REGISTRY.collect()
        if one.name.startswith("rankd_")
    }


def series() -> set[str]:
    """Every name that an expression may ask for."""
    found = {name + suffix for name, kind in own().items() for suffix in SUFFIXES.get(kind, ("",))}
    # Of a process that is not there in tests.
    kinds = ("resident_memory_bytes", "cpu_seconds_total")
    return found | {f"rankd_engine_process_{kind}" for kind in kinds}


def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids) > 30
    shown = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for one, other in combinations(shown, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in shown)


def test_every_panel_asks_the_chosen_datasource_about_the_chosen_servers() -> None:
    for panel in panels():
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["description"] or "vllm:" in panel["targets"][0]["expr"], panel["title"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)
    assert len(TARGETS) > 30
    for title, target in TARGETS:
        selectors = re.findall(r"[\w:]+\{([^}]*)\}", target["expr"])
        assert selectors, title
        assert all('job=~"$job", instance=~"$instance"' in selector for selector in selectors), (
            title
        )


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_rules_ask_for_metrics_that_are_there(file: Path) -> None:
    rules = [
        rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]

    names = [re.findall(r"(?<![\w:])rankd_\w+", rule["expr"]) for rule in rules]
    assert any(names)
    for rule, asked in zip(rules, names, strict=True):
        assert set(asked) <= series(), rule


def test_the_dashboard_asks_for_metrics_that_are_there() -> None:
    names = [re.findall(r"(?<![\w:])rankd_\w+", target["expr"]) for _, target in TARGETS]
    assert any(names)
    for (title, _), asked in zip(TARGETS, names, strict=True):
        assert set(asked) <= series(), title


def test_every_metric_is_documented_and_nothing_else_is() -> None:
    named = set(re.findall(r"`(rankd_\w+)[`{]", DOCUMENT))

    assert own()
    undocumented = set(own()) - named
    assert not undocumented
    unknown = named - series() - set(own())
    assert {name for name in unknown if not name.startswith("rankd_engine_process")} == set()


def test_every_alert_is_explained() -> None:
    alerts = [name for file in RULES for name in re.findall(r"alert: (\w+)", file.read_text())]

    assert alerts
    for name in alerts:
        assert f"`{name}`" in DOCUMENT
