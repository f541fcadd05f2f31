"""What differs between devices; everything else is the same argument everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rankd.engines.vllm.versions import Release
from rankd.errors import BadSettings
from rankd.models.checkpoint import Checkpoint

Device = Literal["cuda", "npu", "cpu"]


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """How vLLM is set up on one kind of device.

    Attributes:
        block_size: tokens of one block of keys and values; None is vLLM's own choice.
            Only whole blocks of a head are shared, so small blocks share more.
        batch_tokens: tokens of one step, at least; a whole pair must fit in one step.
        batch_pairs: pairs of one step.
        dtype: what `auto` means; vLLM's own auto is the checkpoint's type.
    """

    device: Device
    block_size: int | None
    prefix_caching: bool
    chunked_prefill: bool
    batch_tokens: int
    batch_pairs: int
    dtype: str = "auto"
    eager: bool = False


CUDA = DeviceProfile(
    device="cuda",
    block_size=None,  # 16: the smallest, so most of a head is shared.
    prefix_caching=True,
    chunked_prefill=True,
    batch_tokens=16384,
    batch_pairs=512,
)

# Configuration-tested, not run on hardware.
NPU = DeviceProfile(
    device="npu",
    block_size=128,  # All that its kernels know; vllm-ascend 0.23 would set 16 by itself.
    prefix_caching=False,  # Few heads fill a block of 128, and without it all kernels are plain.
    chunked_prefill=False,
    batch_tokens=16384,
    batch_pairs=512,
)

CPU = DeviceProfile(
    device="cpu",
    block_size=32,  # Its default of 128 would share next to nothing.
    prefix_caching=True,
    chunked_prefill=True,
    batch_tokens=4096,
    batch_pairs=256,
    dtype="float32",  # Exact, and on most CPUs faster than bfloat16.
    eager=True,  # Compiling takes minutes and needs a C++ compiler.
)

_PROFILES: dict[str, DeviceProfile] = {profile.device: profile for profile in (CUDA, NPU, CPU)}


def profile_for(device: str, release: Release) -> DeviceProfile:
    """The profile of a device, as `auto` or by name.

    Raises:
        BadSettings: the installed vLLM cannot compute there.
    """
    own = _device_of(release)
    if device not in ("auto", own):
        raise BadSettings(f"device = {device!r}: the installed vLLM {release.text} is for {own}")
    return _PROFILES[own]


def _device_of(release: Release) -> Device:
    """One build of vLLM serves one kind of device."""
    if release.ascend is not None:
        return "npu"
    return "cpu" if release.cpu else "cuda"


def cache_bytes(checkpoint: Checkpoint, tokens: int, bytes_each: int) -> int:
    """Memory for the keys and values of so many tokens."""
    config: dict[str, Any] = checkpoint.config
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(tokens * config["num_hidden_layers"] * 2 * heads * width * bytes_each)
