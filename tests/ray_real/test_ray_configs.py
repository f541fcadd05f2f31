"""The files of configs/ for Ray are what Serve and rankd take."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rankd.config.sources import load
from rankd.engines.ray.policy import WaitingTokensPolicy
from rankd.server.replica import build

pytestmark = pytest.mark.ray

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("device", ["cuda", "ascend"])
def test_serve_and_rankd_take_the_file(device: str) -> None:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    values = yaml.safe_load((CONFIGS / f"ray-{device}.yaml").read_text())
    [application] = ServeDeploySchema(**values).applications
    [deployment] = application.deployments
    module, _, attribute = application.import_path.partition(":")
    scaling = AutoscalingConfig(**values["applications"][0]["deployments"][0]["autoscaling_config"])

    assert (module, attribute) == (build.__module__, build.__name__)
    built = build(application.args)._bound_deployment
    assert built.name == deployment.name
    assert load(application.args, {}).engine == "vllm"
    assert scaling.policy.get_policy().__name__ == WaitingTokensPolicy.__name__


def test_replicas_get_an_engine_of_their_own_and_no_secrets() -> None:
    app = build({"engine": "ray", "model": "builtin", "api_keys": ["secret"], "cache_mb": 5})
    [values] = app._bound_deployment.init_args

    assert values == {"model": "builtin"}


@pytest.mark.parametrize(
    ("waiting", "rate", "current", "wanted"),
    [(0, 100.0, 3, 1), (1000, 100.0, 1, 2), (1001, 100.0, 1, 3), (1000, 0.0, 2, 2)],
)
def test_as_many_replicas_as_score_what_waits_in_time(
    waiting: int, rate: float, current: int, wanted: int
) -> None:
    assert WaitingTokensPolicy(seconds_of_patience=5).wanted(waiting, rate, current) == wanted
