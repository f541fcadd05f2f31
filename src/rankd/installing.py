"""Says how to install one of rankd's extras, depending on where rankd was installed from."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """The command that adds an extra: `pip install 'rankd[eval]'`, or with a checkout's path."""
    return f"{pip()} install {_requirement(_origin(), extra)}"


def pip() -> str:
    """The command pip, with its path if a shell would find another environment's."""
    if sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix:
        return "pip"
    return str(_shown(Path(sys.prefix)) / "bin" / "pip")


def _origin() -> dict[str, Any]:
    """What PEP 610's direct_url.json says; empty if rankd came from an index."""
    try:
        text = distribution("rankd").read_text("direct_url.json")
    except PackageNotFoundError:  # Code without metadata, such as a copied folder.
        return {}
    origin: dict[str, Any] = json.loads(text) if text else {}
    return origin


def _requirement(origin: dict[str, Any], extra: str) -> str:
    url = urlsplit(str(origin.get("url", "")))
    path = Path(unquote(url.path))
    if url.scheme == "file" and path.exists():  # An image has the wheel no longer.
        if origin.get("dir_info", {}).get("editable"):
            constraints = "-c constraints.txt " if path == Path.cwd() else ""
            return f"{constraints}-e '{_shown(path)}[{extra}]'"
        return f"'{path}[{extra}]'"
    if vcs := origin.get("vcs_info"):
        return f"'rankd[{extra}] @ {vcs['vcs']}+{origin['url']}'"
    return f"'rankd[{extra}]'"


def _shown(path: Path) -> Path:
    """The path, relative if it is in the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
