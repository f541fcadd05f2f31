"""The command line: `rankd serve`, `rankd rerank`, `rankd check`, ..."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rankd.cli import parser
from rankd.config.settings import Settings
from rankd.config.show import shown
from rankd.config.sources import load, sources
from rankd.errors import INTERRUPTED, BadSettings, RankError, SetupError
from rankd.models.download import is_fetching
from rankd.telemetry import terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, one of `EXIT_CODES`."""
    terminal.prepare()
    status = 0
    try:
        status = _command(arguments)
        _flush()
    except BrokenPipeError:
        # Who read our output has seen enough (`| head`); Python would try once more at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if is_fetching():
        # The hub's own threads would be waited for until their next piece, minutes perhaps.
        os._exit(status)
    return status


def _command(arguments: Sequence[str] | None) -> int:
    options = parser.build(_COMMANDS).parse_args(arguments)
    try:
        return _run(options.command(options))
    except SetupError as problem:
        print(f"rankd: {problem}", file=sys.stderr)  # noqa: T201
        return problem.exit_code
    except RankError as problem:
        print(f"rankd: {problem.message}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _run(work: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(work)


async def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if options.print_config:
        terminal.use_utf8()
        print(shown(settings, sources(_flags(options), config=options.config)))  # noqa: T201
        return 0

    from rankd.server.run import serve
    from rankd.server.tls import check_tls

    _configure_logging(settings)
    check_tls(settings)
    _warn_of_open_door(settings)
    _warn_of_texts(settings)
    return await serve(settings)


def _warn_of_open_door(settings: Settings) -> None:
    if settings.api_keys or settings.api_keys_file or not _is_reachable(settings.host):
        return
    logging.getLogger("rankd").warning(
        "anyone who reaches %s may use this server: it has no --api-key", settings.host
    )


def _warn_of_texts(settings: Settings) -> None:
    if settings.log_texts:
        logging.getLogger("rankd").warning(
            "--log-texts: queries, instructions and documents are written to this log"
        )


def _is_reachable(host: str) -> bool:
    """Whether others than this machine may come in; nobody comes to a name without an address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        return False
    return not all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


async def _check(options: argparse.Namespace) -> int:
    from rankd.cli.offline import check, check_json

    def read() -> Settings:
        settings = _settings(options)
        _configure_logging(settings, quiet=True)
        return settings

    return await (check_json(read) if options.json else check(read()))


async def _rerank(options: argparse.Namespace) -> int:
    from rankd.cli.offline import RerankOptions, rerank

    if options.preset and "instruction" in options:
        raise BadSettings("--preset and --instruction say different things; give one")
    wanted = RerankOptions(
        query=terminal.as_utf8(options.query),
        file=options.file,
        top_n=options.top_n,
        raw=options.raw_scores,
        preset=options.preset,
        alias=options.alias,
        score_threshold=options.score_threshold,
    )
    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await rerank(settings, wanted)


async def _eval(options: argparse.Namespace) -> int:
    from rankd.evaluation.evaluate import evaluate
    from rankd.evaluation.options import EvalOptions

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await evaluate(settings, EvalOptions.of(options))


async def _calibrate(options: argparse.Namespace) -> int:
    from rankd.evaluation.calibrate import calibrate
    from rankd.evaluation.options import CalibrateOptions

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await calibrate(settings, CalibrateOptions.of(options))


async def _probe(options: argparse.Namespace) -> int:
    from rankd.cli.healthcheck import probe

    probe(_settings(options))
    return 0


# A key that can be guessed is no better hidden by its digest.
_SHORTEST_KEY = 20


async def _hash_key(options: argparse.Namespace) -> int:
    from getpass import getpass

    from rankd.server.middleware.auth import hash_key

    try:
        if sys.stdin is None:
            raise BadSettings("standard input is closed")
        key = (getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
        key.encode()
    except UnicodeError:
        raise BadSettings("the key is not UTF-8") from None
    if not key:
        raise BadSettings("no key was given; make one with `openssl rand -hex 32`")
    if len(key) < _SHORTEST_KEY:
        print("rankd: a short key can be guessed from its digest", file=sys.stderr)  # noqa: T201
    print(hash_key(key))  # noqa: T201
    return 0


async def _completion(options: argparse.Namespace) -> int:
    try:
        from rankd.cli.completion import script
    except ModuleNotFoundError as problem:
        raise SetupError(f"completion needs {problem.name}: pip install {problem.name}") from None

    print(script(options.root, options.shell), end="")  # noqa: T201
    return 0


async def _version(options: argparse.Namespace) -> int:
    from rankd.cli import report

    here = report.EnvironmentReport.here()
    said = here.model_dump_json(indent=2) if options.json else report.versions()
    print(said)  # noqa: T201
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    return load(_flags(options), config=options.config)


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    given = vars(options)
    return {name: given[name] for name in Settings.model_fields if name in given}


def _configure_logging(settings: Settings, *, quiet: bool = False) -> None:
    """Log to stderr; a quiet command says nothing of what goes well, unless asked to debug."""
    from rankd.telemetry.logs import configure

    least = "warning" if quiet and settings.log_level == "info" else settings.log_level
    configure(least, settings.log_format)
    # Connection chatter of the hub's client is of no use to an operator.
    for library in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)


# What runs each command.
_COMMANDS: Mapping[str, Callable[[argparse.Namespace], Coroutine[Any, Any, int]]] = {
    "serve": _serve,
    "check": _check,
    "rerank": _rerank,
    "eval": _eval,
    "calibrate": _calibrate,
    "probe": _probe,
    "hash-key": _hash_key,
    "completion": _completion,
    "version": _version,
}


if __name__ == "__main__":
    sys.exit(main())
