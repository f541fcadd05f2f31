"""vLLM's arguments that differ between devices: CUDA, Ascend NPU and CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rankd.engines.vllm.versions import Release
from rankd.errors import BadSettings
from rankd.models.checkpoint import Checkpoint

Device = Literal["cuda", "npu", "cpu"]


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """vLLM's configuration on one kind of device.

    Attributes:
        block_size: tokens of one block of keys and values; None: vLLM's default. Only whole
            blocks of a prefix are shared, so smaller blocks share more.
        batch_tokens: tokens of one step; raised to `max_tokens` when that is larger, because
            a whole pair must fit in one step.
        batch_pairs: maximum pairs of one step.
        slots: batches of the scheduler in flight; vLLM merges them into its steps.
        slot_tokens: tokens of one such batch. All slots together keep vLLM busy; a new request
            waits for as many tokens at most.
        eager: run without compiled graphs.
    """

    device: Device
    block_size: int | None
    prefix_caching: bool
    chunked_prefill: bool
    batch_tokens: int
    batch_pairs: int
    slots: int
    slot_tokens: int
    eager: bool = False


CUDA = DeviceProfile(
    device="cuda",
    block_size=None,  # 16, the smallest: most of a prefix is shared.
    prefix_caching=True,
    chunked_prefill=True,
    batch_tokens=16384,
    batch_pairs=512,
    slots=8,  # Two full steps, so that the next is ready when a step ends. Not run on a GPU.
    slot_tokens=4096,
)

# Its configuration is tested; it has not run on hardware.
NPU = DeviceProfile(
    device="npu",
    block_size=128,  # The only size its kernels support; vllm-ascend 0.23 defaults to 16.
    # Few prefixes fill a block of 128, and without caching the simplest kernels are used.
    prefix_caching=False,
    chunked_prefill=False,
    batch_tokens=16384,
    batch_pairs=512,
    slots=8,  # Two full steps, so that the next is ready when a step ends. Not run on a GPU.
    slot_tokens=4096,
)

CPU = DeviceProfile(
    device="cpu",
    block_size=32,  # The default of 128 is longer than most prefixes.
    prefix_caching=True,
    chunked_prefill=True,
    batch_tokens=4096,
    batch_pairs=256,
    slots=8,  # Two full steps; the scheduler uses two slots of them with models that are slow.
    slot_tokens=1024,
    eager=True,  # Compiling takes minutes and needs a C++ compiler.
)

_PROFILES: dict[str, DeviceProfile] = {profile.device: profile for profile in (CUDA, NPU, CPU)}


def profile_for(device: str, release: Release) -> DeviceProfile:
    """The profile for the setting `device`; `auto` is the device that vLLM was built for.

    Raises:
        BadSettings: the installed vLLM was built for another device.
    """
    supported = _device_of(release)
    if device not in ("auto", supported):
        raise BadSettings(
            f"device = {device!r}: the installed vLLM {release.text} is for {supported}; "
            f"set device to auto, or install vLLM for {device}"
        )
    return _PROFILES[supported]


def _device_of(release: Release) -> Device:
    """The device that a release was built for; each build supports exactly one kind."""
    if release.ascend is not None:
        return "npu"
    return "cpu" if release.cpu else "cuda"


def kv_cache_bytes(checkpoint: Checkpoint, tokens: int, bytes_per_value: int) -> int:
    """Memory for the keys and values of `tokens` tokens in all layers."""
    config: dict[str, Any] = checkpoint.config
    kv_heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(tokens * config["num_hidden_layers"] * 2 * kv_heads * head_dim * bytes_per_value)
