"""The command line: `rankd serve`, `rankd rerank`, `rankd check`, ..."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd import __version__
from rankd.errors import BadSettings, RankError, SetupError
from rankd.evaluation import flags
from rankd.settings import Settings, load, nearest, shown, sources

INTERRUPTED = 130  # What a shell reports of a command that Ctrl-C ended.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
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
    except BrokenPipeError:
        # Who read our output has seen enough (`| head`).
        sys.stderr.close()
        return 0


def _run(work: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(work)


async def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if options.print_config:
        print(shown(settings, sources(_flags(options), config=options.config)))  # noqa: T201
        return 0

    from rankd.server import serve
    from rankd.tls import check_tls

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
    from rankd.offline import check

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await check(settings)


async def _rerank(options: argparse.Namespace) -> int:
    from rankd.offline import rerank

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await rerank(
        settings,
        query=options.query,
        file=options.file,
        top_n=options.top_n,
        raw=options.raw_scores,
    )


async def _eval(options: argparse.Namespace) -> int:
    from rankd.evaluation.evaluate import evaluate

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await evaluate(settings, flags.EvalOptions.of(options))


async def _calibrate(options: argparse.Namespace) -> int:
    from rankd.evaluation.calibrate import calibrate

    settings = _settings(options)
    _configure_logging(settings, quiet=True)
    return await calibrate(settings, flags.CalibrateOptions.of(options))


async def _probe(options: argparse.Namespace) -> int:
    from rankd.probe import probe

    probe(_settings(options))
    return 0


# A key that can be guessed is no better hidden by its digest.
_SHORTEST_KEY = 20


async def _hash_key(options: argparse.Namespace) -> int:
    from getpass import getpass

    from rankd.door.keys import hashed

    try:
        key = (getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
        key.encode()
    except UnicodeError:
        raise BadSettings("the key is not UTF-8") from None
    if not key:
        raise BadSettings("no key was given; make one with `openssl rand -hex 32`")
    if len(key) < _SHORTEST_KEY:
        print("rankd: a short key can be guessed from its digest", file=sys.stderr)  # noqa: T201
    print(hashed(key))  # noqa: T201
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    return load(_flags(options), config=options.config)


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    given = vars(options)
    return {name: given[name] for name in Settings.model_fields if name in given}


def _configure_logging(settings: Settings, *, quiet: bool = False) -> None:
    """Log to stderr; a quiet command says nothing of what goes well, unless asked to debug."""
    from rankd.logs import configure

    least = "warning" if quiet and settings.log_level == "info" else settings.log_level
    configure(least, settings.log_format)
    # Connection chatter of the hub's client is of no use to an operator.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _Parser(argparse.ArgumentParser):
    """Names the nearest flag when one is misspelled, and says so in one line."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in options.parser._actions for flag in action.option_strings]
            word = unknown[0].split("=")[0]
            hint = nearest(word, flags) if word.startswith("-") else ""
            options.parser.error(f"unknown argument {word}{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        print(f"rankd: {message} (see `{self.prog} --help`)", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rankd",
        description="A rerank server for Qwen3-Reranker that gives right scores without a flag.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rankd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = _command(commands, "serve", _serve, "answer rerank requests over HTTP", " [MODEL]")
    serve.add_argument(
        "--print-config",
        action="store_true",
        default=False,
        help="print every setting and where it comes from, without secrets, and end",
    )
    _add_settings(serve, positional=True)
    check = _command(
        commands, "check", _check, "score known pairs: is this set-up right?", " [MODEL]"
    )
    _add_settings(check, positional=True)
    rerank = _command(
        commands,
        "rerank",
        _rerank,
        "score a file of documents, without a server",
        " FILE --query TEXT",
    )
    rerank.add_argument("--query", required=True, metavar="TEXT", help="the question")
    rerank.add_argument(
        "file",
        metavar="FILE",
        help="one document a line, as text, a JSON string or an object with `text`; - is stdin",
    )
    rerank.add_argument("--top-n", type=int, metavar="INT", help="print this many; all when absent")
    rerank.add_argument("--raw-scores", action="store_true", help="print logits, in nats")
    _add_settings(rerank, positional=False)
    evaluate = _command(
        commands,
        "eval",
        _eval,
        "judge rankings, before and after reranking",
        " DIR --run FILE|--bm25",
    )
    flags.add_eval(evaluate)
    _add_settings(evaluate, positional=False)
    calibrate = _command(
        commands, "calibrate", _calibrate, "find thresholds from judged pairs", " FILE"
    )
    flags.add_calibrate(calibrate)
    _add_settings(calibrate, positional=False)
    probe = _command(commands, "probe", _probe, "ask the server on this machine: is it ready?")
    _add_settings(probe, positional=False)
    _command(commands, "hash-key", _hash_key, "print the digest of a key that is read from stdin")
    return parser


def _command(
    commands: Any, name: str, command: Any, summary: str, operands: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + "." * (not summary.endswith("?")),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    # Of eighty options argparse makes a page; the list below it is enough.
    parser.usage = f"{parser.prog}{operands} [OPTION ...]"
    parser.set_defaults(command=command, parser=parser, top_n=None, raw_scores=False, config=None)
    return parser


def _add_settings(parser: argparse.ArgumentParser, *, positional: bool) -> None:
    """One flag for each setting, from the setting's own line.

    Args:
        positional: MODEL may also stand by itself.
    """
    group = parser.add_argument_group("settings (also RANKD_<NAME>, or a key of --config)")
    group.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="a TOML file of settings; of several the later are the stronger",
    )
    for name, field in Settings.model_fields.items():
        if name == "model" and positional:
            parser.add_argument("model", nargs="?", metavar="MODEL", help=field.description)
        help_text = _help(field).replace("%", "%%")
        flag = f"--{name.replace('_', '-')}"
        if name == "api_keys":
            group.add_argument(
                "--api-key", dest=name, action="append", metavar="KEY", help=help_text
            )
        elif field.annotation is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
        elif get_origin(field.annotation) is Literal:
            choices = get_args(field.annotation)
            group.add_argument(flag, metavar="|".join(choices), help=help_text)
        else:
            group.add_argument(flag, metavar=_kind(field.annotation), help=help_text)


def _help(field: FieldInfo) -> str:
    """What it is, and its default; what is absent or empty by default says so in its own words."""
    said = field.description or ""
    return said if field.default in (None, (), {}) else f"{said} [{field.default}]"


def _kind(annotation: object) -> str:
    if annotation in (int, float):
        return "INT" if annotation is int else "NUMBER"
    if get_origin(annotation) is dict:
        return "JSON"
    return "PATH" if annotation == Path | None else "TEXT"


if __name__ == "__main__":
    sys.exit(main())
