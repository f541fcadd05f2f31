"""`rankd hash-key`: prints the digest of an API key."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass

from rankd.cli.common import write_line
from rankd.errors import BadSettings
from rankd.server.middleware.auth import hash_key

# Characters below which a key can be guessed from its digest.
_MIN_KEY_LENGTH = 20


async def run(options: argparse.Namespace) -> int:
    """Read a key from stdin, without echo on a terminal; returns 0.

    Raises:
        BadSettings: stdin is closed, empty or not UTF-8.
    """
    key = _read_key()
    if not key:
        raise BadSettings("no key was given; make one with `openssl rand -hex 32`")
    if len(key) < _MIN_KEY_LENGTH:
        print("rankd: a short key can be guessed from its digest", file=sys.stderr)  # noqa: T201
    write_line(hash_key(key))
    return 0


def _read_key() -> str:
    if sys.stdin is None:
        raise BadSettings("standard input is closed")
    try:
        key = (getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
        key.encode()
    except UnicodeError:
        raise BadSettings("the key is not UTF-8") from None
    return key
