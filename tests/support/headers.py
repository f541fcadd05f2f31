"""Reads the headers that rankd sets."""

from __future__ import annotations

import re
from urllib.parse import unquote

# RFC 9651: a key and a string, a display string, or a boolean.
_MEMBER = re.compile(
    r'(?P<key>[a-z*][a-z0-9_.*-]*)=(?:"(?P<string>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r'|%"(?P<display>(?:[ !#$&-~]|%[0-9a-f]{2})*)"|\?(?P<boolean>[01]))(?:, |$)'
)


def parsed(header: str) -> dict[str, str | bool]:
    """The dictionary that a header is; fails where it is none."""
    found: dict[str, str | bool] = {}
    place = 0
    while place < len(header):
        member = _MEMBER.match(header, place)
        assert member, header[place:]
        place = member.end()
        found[member["key"]] = (
            member["boolean"] == "1"
            if member["boolean"]
            else re.sub(r"\\(.)", r"\1", member["string"])
            if member["string"] is not None
            else unquote(member["display"])
        )
    return found
