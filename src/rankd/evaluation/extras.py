"""Checks that the packages of `rankd[eval]` are installed, before anything is scored."""

from __future__ import annotations

from importlib.util import find_spec

from rankd.errors import BadSettings
from rankd.installing import install_command


def require(purpose: str, **packages: str) -> None:
    """Check that modules can be imported.

    Args:
        purpose: what needs them, such as `rankd eval`.
        packages: the package that installs each module, by the module's name.

    Raises:
        BadSettings: one of them is missing; names it and the extra to install.
    """
    for module, package in packages.items():
        if find_spec(module) is None:
            raise BadSettings(f"{purpose} needs {package}: {install_command('eval')}")
