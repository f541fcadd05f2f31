"""What several commands need: their settings, and logging."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from rankd.config.settings import Settings
from rankd.config.sources import load


def load_settings(options: argparse.Namespace) -> Settings:
    """Settings from the command's flags, the environment and files.

    Raises:
        BadSettings: an unknown name, or a value of the wrong kind.
    """
    return load(given_flags(options), config=options.config)


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given as flags, by field name."""
    given = vars(options)
    return {name: given[name] for name in Settings.model_fields if name in given}


def configure_logging(settings: Settings, *, quiet: bool = False) -> None:
    """Log to stderr.

    Args:
        quiet: log from warning on instead of info; `--log-level debug` still shows everything.
    """
    from rankd.telemetry.logs import configure

    level = "warning" if quiet and settings.log_level == "info" else settings.log_level
    configure(level, settings.log_format)
    # The hub's client logs each connection.
    for library in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)


def load_quiet_settings(options: argparse.Namespace) -> Settings:
    """Settings of a command without a server, with logging configured to warnings."""
    settings = load_settings(options)
    configure_logging(settings, quiet=True)
    return settings


def write_line(text: str) -> None:
    """Write a line of the command's result to stdout."""
    print(text)  # noqa: T201
