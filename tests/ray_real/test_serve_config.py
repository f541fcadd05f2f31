"""The overlay's serveConfigV2, as Ray Serve reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

OVERLAY = Path(__file__).parents[2] / "deploy/kubernetes/overlays/ray/rayservice.yaml"


@pytest.mark.ray
def test_serve_takes_the_configuration_of_the_overlay() -> None:
    from ray.serve.schema import ServeDeploySchema

    service = yaml.safe_load(OVERLAY.read_text())
    configuration = yaml.safe_load(service["spec"]["serveConfigV2"])

    schema = ServeDeploySchema.model_validate(configuration)

    [deployment] = schema.applications[0].deployments
    scaling = deployment.autoscaling_config
    assert scaling["policy"]["policy_kwargs"] == {"seconds_of_patience": 5}
    assert schema.proxy_location == "Disabled"
