"""Checks of settings that a type cannot express, and parsing of flags and variables.

Each check raises `ValueError` with a sentence for the operator.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rankd.config.experiments import Experiment, Shadow
from rankd.config.suggest import nearest
from rankd.config.tables import DEFAULT, Calibration
from rankd.config.text import has_surrogates

# The format that `rankd hash-key` prints.
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")

# The `Origin` header of a browser: no path, no slash at the end.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)

# Ray Serve takes more, such as the "#" with which it joins names.
_RAY_APP = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Segments that need no escaping in a URL.
_ROOT_PATH = re.compile(r"(/[a-z0-9._~-]*[a-z0-9_~-])+", re.IGNORECASE | re.ASCII)

# A DNS name or an address; IPv6 in brackets, as in a URL.
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", re.ASCII)


def parse_json(value: Any) -> Any:
    """Parse the JSON of a flag or an environment variable; values from a file pass unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as problem:
        raise ValueError(f"not JSON: {problem}") from None


def split_commas(value: Any) -> Any:
    """Split the list of a flag or an environment variable; a list from a file passes unchanged."""
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


def check_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse API keys that no client can send, and malformed digests."""
    if not all(key.strip() == key and key for key in keys):
        raise ValueError("a key must not be empty, or begin or end with a blank")
    if any(has_surrogates(key) for key in keys):
        raise ValueError("a key must be text in UTF-8")
    if any(key.startswith("sha256:") and not _DIGEST.fullmatch(key) for key in keys):
        raise ValueError("sha256: must be followed by 64 hexadecimal digits")
    return keys


def check_ray_app(name: str) -> str:
    """Refuse names that cannot be that of an application."""
    if not _RAY_APP.fullmatch(name):
        raise ValueError("1 to 64 letters, digits, _ and - make the name of an application")
    return name


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse values that no browser sends as `Origin`."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin such as https://app.example.com")
    return origins


def check_root_path(path: str) -> str:
    """Refuse what is no path; a slash at its end is dropped."""
    if (path := path.rstrip("/")) and not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path such as /rank")
    return path


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Host names in lower case; refuses URLs and ports, which `Host` is compared without."""
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host name such as rank.example.com, without a port")
    return tuple(host.lower() for host in hosts)


def check_calibrations(tables: Mapping[str, Calibration], settings: Mapping[str, Any]) -> None:
    """Refuse calibrations that are empty, or were measured with another text of their preset.

    The text of `default` may be that of the checkpoint, and is compared when it is known.
    """
    for name, table in tables.items():
        text = instruction_named(name, settings)
        if table.threshold is None and table.platt is None:
            raise ValueError(f"{name} has neither a threshold nor platt")
        if name != DEFAULT:
            check_measured_text(name, table, text)


def check_measured_text(name: str, table: Calibration, text: str | None) -> None:
    """Raises `ValueError` if a calibration was measured with another instruction."""
    if table.instruction not in (None, text):
        raise ValueError(
            f"{name} was measured with another text: {table.instruction!r}, not {text!r}"
        )


def check_presets(presets: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Refuse unknown preset names.

    Args:
        presets: preset names, by the alias or key that uses them.
    """
    for user, name in presets.items():
        instruction_named(name, settings, f"{user}: ")


def check_experiments(tables: Sequence[Shadow | Experiment], settings: Mapping[str, Any]) -> None:
    """Refuse names that occur twice, and presets and aliases that do not exist."""
    names = Counter(table.name for table in tables)
    if names and (most := names.most_common(1)[0])[1] > 1:
        raise ValueError(f"{most[0]!r} is the name of two tables; each needs its own")
    aliases = settings.get("aliases", {})
    for table in tables:
        for preset in filter(None, (table.preset, getattr(table, "for_preset", None))):
            instruction_named(preset, settings, f"{table.name}: ")
        if table.alias and not getattr(table, "url", None) and table.alias not in aliases:
            hint = nearest(table.alias, aliases)
            raise ValueError(f"{table.name}: {table.alias!r} is not in [aliases]{hint}")


def instruction_named(name: str, settings: Mapping[str, Any], prefix: str = "") -> str:
    """The text of a preset, or of the server's own instruction.

    Args:
        prefix: what the error message begins with.

    Raises:
        ValueError: there is no such preset.
    """
    presets = settings.get("instructions", {})
    if name == DEFAULT:
        return str(settings["instruction"])
    if name not in presets:
        hint = nearest(name, [*presets, DEFAULT])
        raise ValueError(f"{prefix}{name!r} is neither in [instructions] nor {DEFAULT!r}{hint}")
    return str(presets[name])
