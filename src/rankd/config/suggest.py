""" "Did you mean …?" for names that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def nearest(
    name: str, known: Iterable[str], spelled: Callable[[str], str] = lambda name: name
) -> str:
    """`; did you mean ...?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {spelled(near[0])}?" if near else ""
