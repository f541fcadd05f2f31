"""What may stand on the command line: commands, their flags, and the help that lists them.

Nothing heavy is imported here: `rankd --help` and each press of TAB wait for it.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd import __version__
from rankd.config.settings import Settings
from rankd.config.show import topics
from rankd.config.suggest import nearest
from rankd.errors import EXIT_CODES
from rankd.evaluation import options
from rankd.telemetry import terminal

_ABOUT = "A rerank server for Qwen3-Reranker that gives right scores without a flag."

# Commands by what they are for, in the order of the help.
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Serve": {"serve": "answer rerank requests over HTTP"},
    "Try": {
        "check": "score known pairs: is this set-up right?",
        "rerank": "score a file of documents, without a server",
    },
    "Measure": {
        "eval": "judge rankings, before and after reranking",
        "calibrate": "find thresholds from judged pairs",
    },
    "Operate": {
        "probe": "ask the server on this machine: is it ready?",
        "hash-key": "print the digest of a key that is read from stdin",
        "completion": "print a script that completes commands in a shell",
        "version": "print the versions of rankd and what it uses",
    },
}
SHELLS = ("bash", "zsh", "fish")

# What a command without a server has to do with; it takes all others, too, so that one file of
# settings does for all commands.
_OFFLINE = ("Model", "Engine", "vLLM", "Documents and instructions", "Cache")


class Parser(argparse.ArgumentParser):
    """Names the nearest word when one is misspelled, and says so in one line."""

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

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            self.error(f"unknown command {value!r}{nearest(str(value), action.choices)}")
        super()._check_value(action, value)


class _Main(Parser):
    """The parser of `rankd` itself, whose help is one screen."""

    def format_help(self) -> str:
        # As wide as argparse's own.
        columns = max(20, terminal.width(sys.stdout) - 2)
        lines = ["usage: rankd COMMAND [OPTION ...]", "", *textwrap.wrap(_ABOUT, columns)]
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


def build(commands: Mapping[str, Any]) -> Parser:
    """The whole command line.

    Args:
        commands: what runs each command, by its name; options hold it as `command`.
    """
    parser = _Main(prog="rankd", description=_ABOUT, allow_abbrev=False)
    parser.add_argument(
        "--version", action="version", version=f"rankd {__version__}", help="print the version"
    )
    # Theirs is the ordinary help.
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, operands: str = "") -> argparse.ArgumentParser:
        summary = next(names[name] for names in COMMANDS.values() if name in names)
        return _command(subparsers, name, commands[name], summary, operands)

    _serve(add("serve", " [MODEL]"))
    _check(add("check", " [MODEL]"))
    _rerank(add("rerank", " FILE --query TEXT"))
    evaluate = add("eval", " DIR --run FILE|--bm25")
    options.add_eval(evaluate)
    add_settings(evaluate, _OFFLINE, also=("api_keys",))
    calibrate = add("calibrate", " FILE")
    options.add_calibrate(calibrate)
    add_settings(calibrate, _OFFLINE, also=("api_keys",))
    add_settings(add("probe"), ("Address and HTTPS",))
    add("hash-key")
    completion = add("completion", f" {'|'.join(SHELLS)}")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(root=parser)
    _add_json(add("version"), "print one JSON object")
    return parser


def _command(
    commands: Any, name: str, command: Any, summary: str, operands: str
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
    parser.set_defaults(command=command, parser=parser, config=None)
    return parser


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--print-config",
        action="store_true",
        default=False,
        help="print every setting and where it comes from, without secrets, and end",
    )
    add_settings(parser, tuple(topics()), positional=True)


def _check(parser: argparse.ArgumentParser) -> None:
    _add_json(parser, "print one JSON object, by docs/check.schema.json, whatever happens")
    add_settings(parser, _OFFLINE[:-1], positional=True)


def _rerank(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--query", required=True, metavar="TEXT", help="the question")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="one document a line, as text, a JSON string or an object with `text`; - is stdin",
    )
    add = parser.add_argument
    most = "print this many; all when absent"
    add("--top-n", type=int, default=None, metavar="INT", help=most)
    add("--raw-scores", action="store_true", default=False, help="print logits, in nats")
    preset = "judge by this preset of [instructions], with what [calibration] says of it"
    add("--preset", default=None, metavar="NAME", help=preset)
    alias = "judge as requests to this name of [aliases] are judged"
    add("--alias", default=None, metavar="NAME", help=alias)
    least = "leave out scores below it, 0 to 1 (logits: any); the calibrated one when absent"
    add("--score-threshold", type=float, default=None, metavar="NUMBER", help=least)
    add_settings(parser, _OFFLINE)


def _add_json(parser: argparse.ArgumentParser, said: str) -> None:
    parser.add_argument("--json", action="store_true", default=False, help=said)


def add_settings(
    parser: argparse.ArgumentParser,
    shown: Collection[str],
    *,
    also: Collection[str] = (),
    positional: bool = False,
) -> None:
    """One flag for each setting, from the setting's own line, by topic.

    Args:
        shown: topics that the help lists; flags of others are taken silently.
        also: settings of other topics that it lists, too.
        positional: MODEL may also stand by itself.
    """
    if positional:
        described = Settings.model_fields["model"].description
        parser.add_argument("model", nargs="?", metavar="MODEL", help=described)
    found = topics()
    group = parser.add_argument_group(
        "Settings", "Each is also RANKD_<NAME> in the environment, or a key of --config."
    )
    group.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="a TOML file of settings; of several the later are the stronger",
    )
    for topic, names in found.items():
        listed = [name for name in names if topic in shown or name in also]
        group = parser.add_argument_group(topic if listed else None)
        for name in names:
            _add_setting(group, name, Settings.model_fields[name], hidden=name not in listed)
    if len(shown) < len(found):
        parser.epilog = "Every other setting of `rankd serve --help` is taken, too."


def _add_setting(group: Any, name: str, field: FieldInfo, *, hidden: bool) -> None:
    said = argparse.SUPPRESS if hidden else _help(field).replace("%", "%%")
    flag = f"--{name.replace('_', '-')}"
    if name == "api_keys":
        group.add_argument("--api-key", dest=name, action="append", metavar="KEY", help=said)
    elif field.annotation is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=said)
    elif get_origin(field.annotation) is Literal:
        group.add_argument(flag, metavar="|".join(get_args(field.annotation)), help=said)
    else:
        group.add_argument(flag, metavar=_kind(field.annotation), help=said)


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
