"""The entry point of `rankd`: parses the command line and runs one command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rankd.errors import INTERRUPTED, BadSettings, RankError, SetupError
from rankd.installing import install_command
from rankd.models.download import is_downloading
from rankd.telemetry import terminal

# The module of each command. It is imported only when its command runs, and has a function
# `async run(options: argparse.Namespace) -> int`, which returns the exit status.
_MODULES: Mapping[str, str] = {
    "serve": "rankd.cli.serve",
    "ray": "rankd.cli.ray",
    "check": "rankd.cli.check",
    "rerank": "rankd.cli.rerank",
    "score": "rankd.cli.score",
    "eval": "rankd.cli.evaluate",
    "calibrate": "rankd.cli.calibrate",
    "download": "rankd.cli.download",
    "probe": "rankd.cli.healthcheck",
    "hash-key": "rankd.cli.hash_key",
    "completion": "rankd.cli.completion",
    "version": "rankd.cli.version",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, one of `EXIT_CODES`."""
    terminal.prepare()
    status = 0
    try:
        status = _run_command(arguments)
        _flush()
    except BrokenPipeError:
        # The reader of our output has left (`| head`). Python would flush again at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if is_downloading():
        # Python would wait for the hub's download threads, perhaps for minutes.
        os._exit(status)
    return status


def _run_command(arguments: Sequence[str] | None) -> int:
    try:
        options = _parse(arguments)
        return _run(importlib.import_module(_MODULES[options.command]).run(options))
    except SetupError as problem:
        print(f"rankd: {problem}", file=sys.stderr)  # noqa: T201
        return problem.exit_code
    except RankError as problem:
        print(f"rankd: {problem.message}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed options.

    Raises:
        BadSettings: rankd was installed without the server.
    """
    try:
        from rankd.cli import parser
    except ModuleNotFoundError as problem:
        missing = (problem.name or "").partition(".")[0]
        raise BadSettings(
            f"only the client, rankd.client, is installed ({missing} is missing); the server for "
            f"this machine: {install_command('native')}"
        ) from None
    options: argparse.Namespace = parser.build().parse_args(arguments)
    return options


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _run(command: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(command)


if __name__ == "__main__":
    sys.exit(main())
