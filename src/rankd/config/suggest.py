"""Suggests the nearest known name for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def nearest(
    name: str, known: Iterable[str], spelled: Callable[[str], str] = lambda name: name
) -> str:
    """`; did you mean NAME?`, or an empty string when no known name is similar.

    Args:
        spelled: turns a known name into the spelling that the message shows.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {spelled(near[0])}?" if near else ""
