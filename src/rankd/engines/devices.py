"""Which accelerator and how many cores are in this machine, seen without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Accelerator = Literal["cuda", "npu"]

# What each driver puts into /dev, and the variable that hides the devices of a process.
_NPU = ("davinci_manager", "ASCEND_RT_VISIBLE_DEVICES")
_CUDA = ("nvidiactl", "CUDA_VISIBLE_DEVICES")
_CUDA_IN_WSL = ("dxg", "CUDA_VISIBLE_DEVICES")


def accelerator(
    devices: Path = Path("/dev"), environment: Mapping[str, str] | None = None
) -> Accelerator | None:
    """The accelerator that a process may use here; None when there is none."""
    environment = os.environ if environment is None else environment
    if _is_there(_NPU, devices, environment):
        return "npu"
    if any(_is_there(driver, devices, environment) for driver in (_CUDA, _CUDA_IN_WSL)):
        return "cuda"
    return None


def _is_there(driver: tuple[str, str], devices: Path, environment: Mapping[str, str]) -> bool:
    node, variable = driver
    return (devices / node).exists() and environment.get(variable) not in ("", "-1")


def cores() -> int:
    """Cores that this process may use: affinity, and the quota of a container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count or 1
    if quota == "max":
        return count or 1
    return max(1, min(count or 1, -(-int(quota) // int(period))))
