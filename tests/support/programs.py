"""System programs that some tests need."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str) -> str:
    """The path of a program. Without it, skip the test; in CI, fail."""
    # Debian installs servers in folders that are not on the PATH of users.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        missing(f"needs {name}")
    return path


def missing(what: str) -> NoReturn:
    """Skip this test; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
