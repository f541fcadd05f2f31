"""Find what this machine has (accelerator, CPU cores, memory), without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
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


# Instructions that multiply bfloat16 itself, the fastest first: of Intel, Intel and AMD, Arm.
_BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


def bfloat16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Name of the processor's instructions that multiply bfloat16, as Linux spells it, or None.

    None on other systems than Linux too.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    # `flags` on x86, `Features` on Arm; the same for every core.
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return next((flag for flag in _BFLOAT16_FLAGS if flag in flags), None)


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")
) -> int | None:
    """Bytes that this process may still take, by free memory and container limit; None: unknown."""
    found = []
    with suppress(OSError, StopIteration):
        lines = meminfo.read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(available.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # `max`: no limit.
        found.append(int(limit.read_text()))
    return min(found, default=None)
