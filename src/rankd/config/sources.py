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
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rankd.config.experiments import Experiment, Shadow
from rankd.config.redaction import SECRET_NAME, redacted
from rankd.config.removed import replacement
from rankd.config.settings import LISTS, TABLES, Settings
from rankd.config.suggest import nearest
from rankd.config.tables import Alias, Calibration, Platt
from rankd.config.validators import parse_json
from rankd.errors import BadSettings

ENV_PREFIX = "RANKD_"

# The variable for --config. Several files are separated by os.pathsep, as in PATH.
CONFIG_VARIABLE = "RANKD_CONFIG"

# Kubernetes sets these in every container of a namespace that has a Service named "rankd":
# RANKD_SERVICE_HOST, RANKD_SERVICE_PORT_HTTP, RANKD_PORT_8000_TCP_ADDR, RANKD_PORT=tcp://...
_SERVICE_LINK = re.compile(r"RANKD_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))")


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | Sequence[Path] | None = None,
) -> Settings:
    """Settings from flags, environment and files, in that order of precedence.

    Args:
        flags: the flags that were given on the command line, by field name.
        environment: variables by name. Default: `os.environ`.
        config: TOML files of top-level keys and tables, and `[vllm]` for `vllm_args`; a later
            file overrides an earlier one. Default: the files of `RANKD_CONFIG`.

    Raises:
        BadSettings: an unknown name, or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    for given in sources(flags, environment, config).values():
        values |= {name: _merged(name, values.get(name), value) for name, value in given.items()}
    try:
        return Settings(**values)
    except ValidationError as problem:
        raise BadSettings(_message(problem)) from None


def _merged(name: str, before: Any, value: Any) -> Any:
    """A table of one file merged into that of earlier files; flags and variables replace it.

    Arguments of vLLM are merged from every source, because each of them is a setting.
    """
    if name == "vllm_args" and isinstance(value, str):
        with suppress(ValueError):  # Validation reports what is wrong with it.
            value = parse_json(value)
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **value}
    return value


def sources(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | Sequence[Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """Values by source, lowest precedence first. Arguments as for `load`."""
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
            raise BadSettings(f"{config}: unknown setting {name}{_hint(name)}")
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
            hint = replacement(name) or nearest(
                name, Settings.model_fields, spelled=lambda known: ENV_PREFIX + known.upper()
            )
            raise BadSettings(f"unknown setting {variable}{hint}")
        values[name] = value
    return values


def _is_service_link(variable: str, value: str) -> bool:
    return bool(_SERVICE_LINK.match(variable)) or value.startswith(("tcp://", "udp://"))


def _hint(name: str) -> str:
    return replacement(name) or nearest(name, Settings.model_fields)


def _message(problem: ValidationError) -> str:
    """The first error in one sentence, without secrets."""
    error = problem.errors()[0]
    name, *inside = map(str, error["loc"])
    if name not in Settings.model_fields:
        return f"unknown setting {name}{_hint(name)}"
    reason = (error["msg"][0].lower() + error["msg"][1:]).removeprefix("value error, ")
    if name == "vllm_args":
        return f"{name} = ***: {reason}"  # Unparsed JSON may hold tokens.
    if name in TABLES or name in LISTS:
        return _table_message(".".join((name, *inside)), error["type"], reason, error["input"])
    if SECRET_NAME.search(name) or name.endswith("_redis"):
        return f"{name}: {reason}"  # Never the secrets themselves.
    return f"{name} = {redacted('', error['input'])!r}: {reason}"


# Keys of the tables inside [calibration], [aliases], [[shadow]] and [[ab]].
_KEYS = tuple(
    key for table in (Calibration, Platt, Alias, Shadow, Experiment) for key in table.model_fields
)


def _table_message(path: str, kind: str, reason: str, value: Any) -> str:
    if kind == "extra_forbidden":
        return f"unknown setting {path}{nearest(path.rpartition('.')[2], _KEYS)}"
    if kind in ("dict_type", "model_type"):
        reason = "input should be a table"  # Pydantic's message names our class.
    if reason.startswith("input should") and not isinstance(value, dict):
        # "unable to parse string as a number" adds nothing to the value.
        reason = f"{reason.partition(', unable to')[0]}, not {redacted('', value)!r:.80}"
    return f"{path.removesuffix('.[key]')}: {reason}"
