"""Where settings come from: flags, then environment variables, then TOML files, then defaults.

Our own loader, because pydantic-settings ignores unknown environment variables
(https://github.com/pydantic/pydantic-settings/issues/985), and an unknown one must be an error that
names the nearest setting.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from rankd.config.redaction import SECRET_NAME, redacted
from rankd.config.settings import TABLES, Settings
from rankd.config.suggest import nearest
from rankd.config.tables import (
    Alias,
    Calibration,
    Platt,
)
from rankd.errors import BadSettings

ENV_PREFIX = "RANKD_"


# What --config is in a container; several files are separated as the folders of PATH.
CONFIG_VARIABLE = "RANKD_CONFIG"


# Kubernetes puts these into every container beside a Service called "rankd":
# RANKD_SERVICE_HOST, RANKD_SERVICE_PORT_HTTP, RANKD_PORT_8000_TCP_ADDR, RANKD_PORT=tcp://...
_SERVICE_LINK = re.compile(r"RANKD_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))")


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | Sequence[Path] | None = None,
) -> Settings:
    """Settings from flags, environment and files, in that order of precedence.

    Args:
        flags: only what was given on the command line, by field name.
        environment: `os.environ` when absent.
        config: TOML files of top-level keys and tables, and `[vllm]` for `vllm_args`; a later
            one is the stronger.

    Raises:
        BadSettings: an unknown name, or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    for given in sources(flags, environment, config).values():
        values |= {name: _added(values.get(name), value) for name, value in given.items()}
    try:
        return Settings(**values)
    except ValidationError as problem:
        raise BadSettings(_first_sentence(problem)) from None


def _added(before: Any, value: Any) -> Any:
    """A table with what weaker files put into it; flags and variables are text, and replace it."""
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **value}
    return value


def sources(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | Sequence[Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """What each place says, by its name, the weakest first; arguments as those of `load`."""
    environment = os.environ if environment is None else environment
    if not config:
        config = [Path(name) for name in environment.get(CONFIG_VARIABLE, "").split(os.pathsep)]
        config = [file for file in config if file != Path()]
    files = [config] if isinstance(config, Path) else config
    return {
        **{str(file): _from_file(file) for file in files},
        "environment": _from_environment(environment),
        "flag": dict(flags),
    }


def _from_file(config: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadSettings(f"cannot read --config {config}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadSettings(f"{config} is not valid TOML: {problem}") from None
    if "vllm" in values:
        values["vllm_args"] = values.pop("vllm")
    for name in values:
        if name not in Settings.model_fields:
            hint = nearest(name, Settings.model_fields)
            raise BadSettings(f"{config}: unknown setting {name}{hint}")
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, value in environment.items():
        if variable == CONFIG_VARIABLE or not variable.startswith(ENV_PREFIX):
            continue
        if _is_service_link(variable, value):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in Settings.model_fields:
            hint = nearest(name, Settings.model_fields, spelled=lambda it: ENV_PREFIX + it.upper())
            raise BadSettings(f"unknown setting {variable}{hint}")
        values[name] = value
    return values


def _is_service_link(variable: str, value: str) -> bool:
    return bool(_SERVICE_LINK.match(variable)) or value.startswith(("tcp://", "udp://"))


def _first_sentence(problem: ValidationError) -> str:
    error = problem.errors()[0]
    name, *inside = map(str, error["loc"])
    if name not in Settings.model_fields:
        return f"unknown setting {name}{nearest(name, Settings.model_fields)}"
    reason = (error["msg"][0].lower() + error["msg"][1:]).removeprefix("value error, ")
    if name == "vllm_args":
        return f"{name} = ***: {reason}"  # What cannot be read cannot be searched for tokens.
    if name in TABLES:
        return _of_table(".".join((name, *inside)), error["type"], reason, error["input"])
    if SECRET_NAME.search(name) or name.endswith("_redis"):
        return f"{name}: {reason}"  # Never the secrets themselves.
    return f"{name} = {redacted('', error['input'])!r}: {reason}"


# What may stand in tables that hold tables.
_KEYS = (*Calibration.model_fields, *Platt.model_fields, *Alias.model_fields)


def _of_table(path: str, kind: str, reason: str, value: Any) -> str:
    if kind == "extra_forbidden":
        return f"unknown setting {path}{nearest(path.rpartition('.')[2], _KEYS)}"
    if kind in ("dict_type", "model_type"):
        reason = "input should be a table"  # Pydantic's words name a class of ours.
    if reason.startswith("input should") and not isinstance(value, dict):
        # "unable to parse string as a number" says no more than the value does.
        reason = f"{reason.partition(', unable to')[0]}, not {redacted('', value)!r:.80}"
    return f"{path.removesuffix('.[key]')}: {reason}"
