"""Lets in who has a key, wherever a client of some vendor puts it."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rankd.errors import AuthenticationFailed, BadSettings, RankError

_log = logging.getLogger("rankd")

# Headers that hold nothing but the key: Azure's and Pinecone's, and everyone else's.
_BARE = (b"api-key", b"x-api-key")

# Words before it in `Authorization`; in any case.
_SCHEMES = (b"bearer", b"apikey", b"token")


# A line of the file: `name = key`, or the key alone.
_NAMED = re.compile(r"([\w.@-]+)\s+=\s+(\S.*)")

# How a digest is told from a key.
_SHA256 = "sha256:"

# Seconds between two looks at whether the file has changed.
_LOOK_EVERY = 1.0


class KeyRing:
    """The keys of a server: those of its settings, and those of a file that may change.

    Raises:
        BadSettings: the file cannot be read, or holds no key.
    """

    def __init__(self, keys: Sequence[str] = (), file: Path | None = None) -> None:
        self._fixed = {_known(key): "" for key in keys}
        self._file = file
        self._from_file: Mapping[bytes, str] = {}
        self._seen = (0, 0, 0)
        self._complaint = ""
        self._looked = time.monotonic()
        if file is not None:
            self._seen = _state(file)
            self._from_file = read_keys(file)

    def __bool__(self) -> bool:
        """Whether a key is needed at all: a file never opens the door to everyone."""
        return bool(self._fixed) or self._file is not None

    def owner(self, key: bytes) -> str | None:
        """Whose key this is: its name in the file, or the first digits of its digest, which
        tell nobody the key; None when it opens nothing.

        Digests are compared, in a time that does not depend on where they differ.
        """
        self._look()
        digest = _digest(key)
        for known, name in (*self._from_file.items(), *self._fixed.items()):
            if hmac.compare_digest(digest, known):
                return _owner(digest, name)
        return None

    def owners(self) -> frozenset[str]:
        """What `owner` may say of the keys there are now."""
        keys = (*self._from_file.items(), *self._fixed.items())
        return frozenset(_owner(digest, name) for digest, name in keys)

    def _look(self) -> None:
        """Take over a file that has changed; one that cannot be used changes nothing."""
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            state = _state(self._file)
            if state == self._seen:
                return
            self._seen = state
            self._from_file = read_keys(self._file)
            self._complaint = ""
            _log.info("read %d keys from %s", len(self._from_file), self._file)
        except BadSettings as problem:
            self._seen = (0, 0, 0)  # Looked at again until it can be read.
            if self._complaint != str(problem):
                self._complaint = str(problem)
                _log.error("the keys stay as they were: %s", problem)


def _owner(digest: bytes, name: str) -> str:
    return name or digest.hex()[:12]


def read_keys(file: Path) -> dict[bytes, str]:
    """The digests in a file of keys, each with its name or "".

    Raises:
        BadSettings: it cannot be read or holds no key; never repeats a line of it.
    """
    try:
        # A mark of Windows must not become a part of the first key.
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as problem:
        raise BadSettings(f"cannot read --api-keys-file {file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"--api-keys-file {file} is not UTF-8") from None
    keys = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, key = match.groups() if (match := _NAMED.fullmatch(text)) else ("", text)
        try:
            keys[_known(key)] = name
        except ValueError:
            raise BadSettings(
                f"{file}, line {number}: {_SHA256} must be followed by 64 hexadecimal digits"
            ) from None
    if not keys:
        raise BadSettings(f"--api-keys-file {file} holds no key")
    return keys


def hash_key(key: str) -> str:
    """A key as it may stand in a file or in a configuration.

    SHA-256 alone is enough for keys that are random; it is not for words.
    """
    return _SHA256 + _digest(key.encode()).hex()


def _known(key: str) -> bytes:
    if not key.startswith(_SHA256):
        return _digest(key.encode())
    digest = bytes.fromhex(key.removeprefix(_SHA256))
    if len(digest) != sha256().digest_size:
        raise ValueError(len(digest))
    return digest


def _state(file: Path) -> tuple[int, int, int]:
    """What changes when a file is written, or another is put in its place."""
    try:
        stat = file.stat()
    except OSError as problem:
        raise BadSettings(f"cannot read --api-keys-file {file}: {problem.strerror}") from None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


class ApiKeyMiddleware:
    """Refuses what carries no known key, before its body is read.

    Args:
        keys: any of them opens every path; none at all opens them to everyone.
        is_open: whether a GET of this path needs none.
        note: where in the scope a short digest of the key is noted: whose request it is.
        render: puts an error into the envelope of whoever asks.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        is_open: Callable[[str], bool],
        note: str,
        render: Callable[[RankError, Scope], Response],
    ) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open
        self._note = note
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and not self._may_pass(scope):
            # The words that clients look for.
            problem = AuthenticationFailed(
                "invalid api token: send a key as `Authorization: Bearer KEY`"
            )
            await self._render(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["method"] in ("GET", "HEAD") and self._is_open(scope["path"]):
            return True
        for key in sent_keys(scope["headers"]):
            if (owner := self._keys.owner(key)) is not None:
                scope[self._note] = owner
                return True
        return False


def sent_keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Whatever in a request's headers may be a key."""
    for name, value in headers:
        if name in _BARE:
            yield value.strip()
        elif name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() in _SCHEMES:
                yield rest.strip()
            elif scheme.lower() == b"basic":
                yield from _password(rest)
            elif not rest:
                yield scheme  # The key alone.


def _password(encoded: bytes) -> Iterator[bytes]:
    """For clients without a field for a key: `http://any:KEY@host`."""
    try:
        yield base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
