"""Parses structured headers of responses (RFC 9651)."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A key with a string, a display string, or a boolean.
_MEMBER = re.compile(
    r'(?P<key>[a-z*][a-z0-9_.*-]*)=(?:"(?P<string>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r'|%"(?P<display>(?:[ !#$&-~]|%[0-9a-f]{2})*)"|\?(?P<boolean>[01]))(?:, |$)'
)


def parsed(header: str) -> dict[str, str | bool]:
    """A header that is a dictionary; fails if it is not."""
    members: dict[str, str | bool] = {}
    position = 0
    while position < len(header):
        member = _MEMBER.match(header, position)
        assert member, header[position:]
        position = member.end()
        members[member["key"]] = (
            member["boolean"] == "1"
            if member["boolean"]
            else re.sub(r"\\(.)", r"\1", member["string"])
            if member["string"] is not None
            else unquote(member["display"])
        )
    return members
