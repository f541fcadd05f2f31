"""Scripts that let a shell complete commands, flags, choices and files when TAB is pressed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

# By what a flag's value is called in the help. A model may also be a hub id.
_COMPLETE = {
    "FILE": shtab.FILE,
    "PATH": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "FOLDER": shtab.DIRECTORY,
    "MODEL": shtab.DIRECTORY,
}


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for bash, zsh or fish.

    Args:
        parser: of all commands; it is of no further use for parsing.
    """
    for action in _actions(parser):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if "|" in metavar:
            action.choices = metavar.split("|")
        elif metavar in _COMPLETE:
            action.complete = _COMPLETE[metavar]  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
