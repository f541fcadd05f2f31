"""`rankd completion`: prints a script that completes commands, flags, choices and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rankd.cli import parser
from rankd.errors import SetupError

# The metavars of flags that take a file or a folder. A model may be a folder or a hub id.
_FILES = ("FILE", "PATH")
_FOLDERS = ("DIR", "FOLDER", "MODEL")


async def run(options: argparse.Namespace) -> int:
    """Returns 0.

    Raises:
        SetupError: the library that writes the scripts is not installed.
    """
    try:
        completion = script(parser.build(every_setting=True), options.shell)
    except ModuleNotFoundError as problem:
        raise SetupError(f"completion needs {problem.name}: pip install {problem.name}") from None
    print(completion, end="")  # noqa: T201
    return 0


def script(root: argparse.ArgumentParser, shell: str) -> str:
    """The script for bash, zsh or fish.

    Args:
        root: the parser of all commands; changed, so that it cannot parse any more.
        shell: `bash`, `zsh` or `fish`.
    """
    import shtab

    for action in _actions(root):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if "|" in metavar:
            action.choices = metavar.split("|")
        elif metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(root, shell))


def _actions(root: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
