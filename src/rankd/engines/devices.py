"""Find this machine's accelerator and CPU cores, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Accelerator = Literal["cuda", "npu"]

# (device file in /dev that the driver creates, variable that hides devices from a process).
_NPU = ("davinci_manager", "ASCEND_RT_VISIBLE_DEVICES")
_CUDA = ("nvidiactl", "CUDA_VISIBLE_DEVICES")
_CUDA_IN_WSL = ("dxg", "CUDA_VISIBLE_DEVICES")


def accelerator(
    devices: Path = Path("/dev"), environment: Mapping[str, str] | None = None
) -> Accelerator | None:
    """The kind of accelerator that this process may use, or None.

    Args:
        devices: folder of device files.
        environment: variables of the process; default: `os.environ`.
    """
    environment = os.environ if environment is None else environment
    if _is_visible(_NPU, devices, environment):
        return "npu"
    if any(_is_visible(driver, devices, environment) for driver in (_CUDA, _CUDA_IN_WSL)):
        return "cuda"
    return None


def _is_visible(driver: tuple[str, str], devices: Path, environment: Mapping[str, str]) -> bool:
    device_file, variable = driver
    return (devices / device_file).exists() and environment.get(variable) not in ("", "-1")


def cores() -> int:
    """CPU cores that this process may use, at least 1: CPU affinity and container quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count or 1
    if quota == "max":
        return count or 1
    return max(1, min(count or 1, -(-int(quota) // int(period))))
