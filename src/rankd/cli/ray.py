"""`rankd ray deploy`: starts replicas on a Ray cluster, or updates them."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from rankd.cli.common import load_quiet_settings, write_line
from rankd.config.settings import Settings
from rankd.engines.registry import ENGINES
from rankd.errors import BadSettings, SetupError
from rankd.installing import install_command


async def run(options: argparse.Namespace) -> int:
    """Returns 0 when all replicas are ready."""
    settings = load_quiet_settings(options)
    if not ENGINES["ray"].is_installed():
        raise BadSettings(f"this needs ray, which is not installed: {install_command('ray')}")
    await asyncio.to_thread(_deploy, settings, _deployment_options(options))
    front = f"rankd serve {settings.model} --engine ray"
    write_line(f"{settings.ray_app} is ready; start a front beside a node of the cluster: {front}")
    return 0


def _deployment_options(options: argparse.Namespace) -> dict[str, Any]:
    """Options of the deployment, under Serve's names.

    Raises:
        BadSettings: --replicas is neither a number nor two.
    """
    actor: dict[str, Any] = {"num_cpus": options.replica_cpus, "num_gpus": options.replica_gpus}
    if options.replica_npus:
        actor["resources"] = {"NPU": options.replica_npus}
    least, is_range, most = options.replicas.partition("-")
    if not all(one.isdigit() and int(one) for one in (least, *([most] if is_range else []))):
        raise BadSettings(f"--replicas {options.replicas!r} is neither N nor MIN-MAX, such as 1-4")
    if not is_range:
        return {"num_replicas": int(least), "ray_actor_options": actor}
    scaling = _autoscaling(int(least), int(most), options.patience)
    return {"autoscaling_config": scaling, "ray_actor_options": actor}


def _autoscaling(least: int, most: int, patience: float) -> dict[str, Any]:
    return {
        "min_replicas": least,
        "max_replicas": most,
        "policy": {
            "policy_function": "rankd.engines.ray.policy:WaitingTokensPolicy",
            "policy_kwargs": {"seconds_of_patience": patience},
        },
    }


def _deploy(settings: Settings, options: dict[str, Any]) -> None:
    """Start the replicas and wait until they are ready."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray import serve

    from rankd.engines.ray.cluster import DEPLOYMENT, connect
    from rankd.server.replica import build

    connect(settings.ray_address)
    app = build(settings.model_dump(exclude_unset=True), **options)
    # Fronts are the only way in: Serve's own HTTP would have no keys and no limits.
    serve.start(proxy_location="Disabled")
    try:
        serve.run(app, name=settings.ray_app, route_prefix=None)
    except RuntimeError as problem:
        deployments = serve.status().applications[settings.ray_app].deployments
        lines = deployments[DEPLOYMENT].message.strip().splitlines() or [str(problem)]
        raise SetupError(f"the replicas did not start: {lines[-1]}") from None
