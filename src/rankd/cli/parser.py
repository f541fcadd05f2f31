"""The command line's grammar: commands, their flags and their help.

It imports nothing heavy, because `rankd --help` must be fast.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd import __version__
from rankd.config.removed import replacement
from rankd.config.settings import LISTS, Settings
from rankd.config.show import COMMON, topics
from rankd.config.suggest import nearest
from rankd.errors import EXIT_CODES
from rankd.evaluation import options
from rankd.offline.options import add_score
from rankd.telemetry import terminal

_ABOUT = "A rerank server for Qwen3-Reranker: right scores, no flags needed."

# Commands by purpose, in the order of the help.
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Serve and score": {
        "serve": "answer rerank requests over HTTP",
        "ray": "start replicas on a Ray cluster, for `rankd serve --engine ray`",
        "score": "score files of queries and documents, without a server",
    },
    "Try and measure": {
        "check": "score known pairs and report whether the scores are right",
        "rerank": "score a file of documents, without a server",
        "eval": "measure rankings, before and after reranking",
        "calibrate": "find score thresholds from judged pairs",
    },
    "Operate": {
        "download": "fetch a model, check its files and print its folder",
        "probe": "ask the server on this machine whether it is ready",
        "hash-key": "print the digest of an API key, read from stdin",
        "completion": "print a completion script for a shell",
        "version": "print the versions of rankd and its libraries",
    },
}
# Names of other programs for our commands.
_SYNONYMS = {"pull": "download", "fetch": "download", "start": "serve", "run": "serve"}

SHELLS = ("bash", "zsh", "fish")

# Topics that matter to commands without a server. The commands accept every other setting too, so
# that one file of settings works for all commands.
_OFFLINE = ("Model", "Engine", "Documents and instructions", "Cache")

# Those that name what is downloaded.
_DOWNLOADED = ("model", "revision")

# Setting names by heading.
Sections = Mapping[str, Sequence[str]]


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, with the nearest known word."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            options.parser.error(f"unknown argument {word}{_hint(word, options.parser)}")
        return options

    def error(self, message: str) -> NoReturn:
        print(f"rankd: {message} (see `{self.prog} --help`)", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = nearest(_SYNONYMS.get(value, str(value)), action.choices)
            self.error(f"unknown command {value!r}{known}")
        super()._check_value(action, value)


def _hint(word: str, parser: argparse.ArgumentParser) -> str:
    """What to do instead of a removed flag, or the nearest flag."""
    if not word.startswith("-"):
        return ""
    name = word.removeprefix("--").removeprefix("no-").replace("-", "_")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return replacement(name) or nearest(word, flags)


class _Main(Parser):
    """The parser of `rankd` itself. Its help fits on one screen."""

    def format_help(self) -> str:
        # The same width as argparse uses.
        columns = max(20, terminal.width(sys.stdout) - 2)
        lines = ["usage: rankd COMMAND [OPTION ...]", *textwrap.wrap(_ABOUT, columns)]
        for purpose, commands in COMMANDS.items():
            lines += ["", purpose]
            for name, summary in commands.items():
                lines += textwrap.wrap(
                    f"  {name:<11} {summary}", columns, subsequent_indent=" " * 14
                )
        codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
        lines += ["", *textwrap.wrap("`rankd COMMAND --help` lists its options.", columns)]
        lines += textwrap.wrap(f"Exit status: {codes}.", columns)
        return "\n".join(lines) + "\n"


class _HelpAll(argparse.Action):
    """Prints the help of `rankd serve` with every setting, by topic."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        full = Parser(prog=parser.prog, usage=parser.usage, description=parser.description)
        _add_serve(full, every_setting=True)
        full.print_help()
        parser.exit()


def build(*, every_setting: bool = False) -> Parser:
    """The parser of the whole command line. Parsed options have the command's name in `command`.

    Args:
        every_setting: list every setting in the help of `serve`, instead of the common ones.
    """
    parser = _Main(prog="rankd", description=_ABOUT, allow_abbrev=False)
    parser.add_argument(
        "--version", action="version", version=f"rankd {__version__}", help="print the version"
    )
    # The class is given because the default is `_Main`.
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, operands: str = "") -> argparse.ArgumentParser:
        return _add_command(subparsers, name, operands)

    _add_serve(add("serve", " [MODEL]"), every_setting=every_setting)
    _add_ray(add("ray", " deploy [MODEL]"))
    _add_check(add("check", " [MODEL]"))
    _add_rerank(add("rerank", " FILE --query TEXT"))
    score = add("score", " FILE ... --out DIR")
    add_score(score)
    add_settings(score, _sections(*_OFFLINE))
    evaluate = add("eval", " DIR --run FILE|--bm25|--shadow-lines FILE")
    options.add_eval(evaluate)
    add_settings(evaluate, {**_sections(*_OFFLINE), "Keys": ["api_keys"]})
    calibrate = add("calibrate", " FILE")
    options.add_calibrate(calibrate)
    add_settings(calibrate, {**_sections(*_OFFLINE), "Keys": ["api_keys"]})
    download = add("download", " [MODEL]")
    modelscope = "download from ModelScope, with its package `modelscope`, into its cache"
    download.add_argument("--modelscope", action="store_true", default=False, help=modelscope)
    add_settings(download, {"Model": _DOWNLOADED}, positional=True)
    add_settings(add("probe"), _sections("Address and HTTPS"))
    add("hash-key")
    completion = add("completion", f" {'|'.join(SHELLS)}")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    _add_json(add("version"), "print one JSON object")
    return parser


def _add_command(commands: Any, name: str, operands: str) -> argparse.ArgumentParser:
    summary = next(names[name] for names in COMMANDS.values() if name in names)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    # argparse would list every flag in the usage line.
    parser.usage = f"{parser.prog}{operands} [OPTION ...]"
    parser.set_defaults(command=name, parser=parser, config=None)
    return parser


def _add_serve(parser: argparse.ArgumentParser, *, every_setting: bool) -> None:
    parser.add_argument(
        "--help-all", action=_HelpAll, nargs=0, help="show every setting, by topic, and exit"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        default=False,
        help="print every setting and its source, without secrets, and exit",
    )
    add_settings(parser, topics() if every_setting else {"": COMMON}, positional=True)


def _add_ray(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("deploy",), metavar="deploy", help="start or update the replicas")
    replicas = "number of replicas, or MIN-MAX to scale with the waiting tokens"
    add("--replicas", default="1", metavar="N", help=f"{replicas} [1]")
    patience = "with MIN-MAX: seconds that new tokens may wait"
    add("--patience", type=float, default=5.0, metavar="SECONDS", help=f"{patience} [5]")
    add("--replica-cpus", type=float, default=1.0, metavar="N", help="CPUs of a replica [1]")
    add("--replica-gpus", type=float, default=0.0, metavar="N", help="GPUs of a replica [0]")
    add("--replica-npus", type=float, default=0.0, metavar="N", help="NPUs of a replica [0]")
    add_settings(parser, _sections(*_OFFLINE[:2]), positional=True)


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_json(parser, "print one JSON object, also on failure; schema: docs/check.schema.json")
    add_settings(parser, _sections(*_OFFLINE[:-1]), positional=True)


def _add_rerank(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--query", required=True, metavar="TEXT", help="query to score the documents against")
    lines = "one document per line: text, a JSON string or an object with `text`; - is stdin"
    add("file", metavar="FILE", help=lines)
    top = "number of documents to print. Default: all"
    add("--top-n", type=int, default=None, metavar="INT", help=top)
    add("--raw-scores", action="store_true", default=False, help="print logits, in nats")
    preset = "preset of [instructions] to use, with its calibration"
    add("--preset", default=None, metavar="NAME", help=preset)
    alias = "model name of [aliases] whose defaults apply"
    add("--alias", default=None, metavar="NAME", help=alias)
    threshold = "drop lower scores, 0 to 1 (logits: any). Default: the calibrated threshold"
    add("--score-threshold", type=float, default=None, metavar="NUMBER", help=threshold)
    spans = "also print up to INT sentences of each document that answer the query"
    add("--spans", type=int, default=None, metavar="INT", help=spans)
    add_settings(parser, _sections(*_OFFLINE))


def _add_json(parser: argparse.ArgumentParser, description: str) -> None:
    parser.add_argument("--json", action="store_true", default=False, help=description)


def _sections(*names: str) -> Sections:
    """Some topics, with all of their settings."""
    by_topic = topics()
    return {name: by_topic[name] for name in names}


def add_settings(
    parser: argparse.ArgumentParser, sections: Sections, *, positional: bool = False
) -> None:
    """Add one flag per setting, made from its field.

    Args:
        sections: settings that the help lists, by heading; under `""` they stand below the
            general remarks. Flags of all other settings are accepted, but not listed.
        positional: MODEL is also accepted without its flag.
    """
    fields = Settings.model_fields
    if positional:
        parser.add_argument(
            "model", nargs="?", metavar="MODEL", help=_escaped(fields["model"].description)
        )
    general = parser.add_argument_group(
        "Settings", "Each is also RANKD_<NAME> in the environment, or a key of --config."
    )
    general.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="TOML file of settings; may be repeated, later files override earlier ones",
    )
    for heading, names in sections.items():
        group = parser.add_argument_group(heading) if heading else general
        for name in names:
            _add_setting(group, name, fields[name], _help(fields[name]))
    listed = {name for names in sections.values() for name in names}
    for name, field in fields.items():
        if name not in listed:
            _add_setting(general, name, field, argparse.SUPPRESS)
    if len(listed) < len(fields):
        every = f"All {len(fields)} settings are accepted"
        parser.epilog = f"{every}; `rankd serve --help-all` lists them by topic."


def _add_setting(group: Any, name: str, field: FieldInfo, description: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    if name == "api_keys":
        group.add_argument("--api-key", dest=name, action="append", metavar="KEY", help=description)
    elif field.annotation is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=description)
    elif get_origin(field.annotation) is Literal:
        group.add_argument(flag, metavar="|".join(get_args(field.annotation)), help=description)
    else:
        group.add_argument(flag, metavar=_kind(field.annotation), help=description)


def _help(field: FieldInfo) -> str:
    """The description and the default; the description names a default that is empty."""
    description = _escaped(field.description)
    if field.default in (None, (), {}):
        return description
    default = field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    return f"{description} [{default}]"


def _escaped(description: str | None) -> str:
    return (description or "").replace("%", "%%")


# Arrays of tables.
_ARRAYS = [Settings.model_fields[name].annotation for name in LISTS]


def _kind(annotation: object) -> str:
    if annotation in (int, float):
        return "INT" if annotation is int else "NUMBER"
    if get_origin(annotation) is dict or annotation in _ARRAYS:
        return "JSON"
    return "PATH" if annotation == Path | None else "TEXT"
