"""Authentication by API key: the key store, and the middleware that refuses unknown keys."""

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

from rankd.context import CALLER
from rankd.errors import AuthenticationFailed, BadSettings, RankError
from rankd.server.middleware.key_errors import key_error

_log = logging.getLogger("rankd")

# Headers whose whole value is the key. Azure's and Pinecone's clients send the first, Google's the
# last.
_KEY_HEADERS = (b"api-key", b"x-api-key", b"x-goog-api-key")

# Schemes that precede a key in `Authorization`, compared without case.
_SCHEMES = (b"bearer", b"apikey", b"token")

# The access key id in the signature (version 4) of a request of AWS's clients.
_AWS_SCHEME = b"aws4-hmac-sha256"
_AWS_CREDENTIAL = re.compile(rb"\bCredential=([^,\s]+)/\d+/[^/,\s]+/[^/,\s]+/aws4_request\b")

# A line `name = key` of the key file.
_NAMED_KEY = re.compile(r"([\w.@-]+)\s+=\s+(\S.*)")

# Marks the digest of a key, in settings and in the key file.
_SHA256 = "sha256:"

# Seconds between two checks whether the key file has changed.
_CHECK_INTERVAL = 1.0


class KeyRing:
    """The accepted API keys: those from the settings, and those from a file that is reloaded.

    Raises:
        BadSettings: the file cannot be read, or contains no key.
    """

    def __init__(self, keys: Sequence[str] = (), file: Path | None = None) -> None:
        self._from_settings = {_digest_of(key): "" for key in keys}
        self._file = file
        self._from_file: Mapping[bytes, str] = {}
        self._file_state = (0, 0, 0)
        self._last_error = ""
        self._checked = time.monotonic()
        if file is not None:
            self._file_state = _state(file)
            self._from_file = read_keys(file)

    def __bool__(self) -> bool:
        """Whether requests need a key. True with a key file, whatever it contains."""
        return bool(self._from_settings) or self._file is not None

    def owner(self, key: bytes) -> str | None:
        """The owner of a key: its name in the file, or the first 12 digits of its digest.

        Returns None for an unknown key. Digests are compared in constant time.
        """
        self._reload_if_changed()
        digest = _sha256(key)
        for accepted, name in self._digests():
            if hmac.compare_digest(digest, accepted):
                return _owner(digest, name)
        return None

    def owners(self) -> frozenset[str]:
        """Every value that `owner` can return for the current keys."""
        return frozenset(_owner(digest, name) for digest, name in self._digests())

    def _digests(self) -> Iterator[tuple[bytes, str]]:
        yield from self._from_file.items()
        yield from self._from_settings.items()

    def _reload_if_changed(self) -> None:
        """Reload a changed file. If it cannot be used, log it once and keep the old keys."""
        now = time.monotonic()
        if self._file is None or now - self._checked < _CHECK_INTERVAL:
            return
        self._checked = now
        try:
            state = _state(self._file)
            if state == self._file_state:
                return
            self._file_state = state
            self._from_file = read_keys(self._file)
            self._last_error = ""
            _log.info("read %d keys from %s", len(self._from_file), self._file)
        except BadSettings as problem:
            self._file_state = (0, 0, 0)  # Read it again at the next check.
            if self._last_error != str(problem):
                self._last_error = str(problem)
                _log.error("keeping the previous API keys: %s", problem)


def _owner(digest: bytes, name: str) -> str:
    return name or digest.hex()[:12]


def read_keys(file: Path) -> dict[bytes, str]:
    """Digest → name (or "") of each key in a file.

    Raises:
        BadSettings: the file cannot be read or contains no key. Never quotes a line.
    """
    try:
        # utf-8-sig: a byte order mark must not become part of the first key.
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
        name, key = match.groups() if (match := _NAMED_KEY.fullmatch(text)) else ("", text)
        try:
            keys[_digest_of(key)] = name
        except ValueError:
            raise BadSettings(
                f"{file}, line {number}: {_SHA256} must be followed by 64 hexadecimal digits"
            ) from None
    if not keys:
        raise BadSettings(f"--api-keys-file {file} contains no key; write one per line")
    return keys


def hash_key(key: str) -> str:
    """The digest of a key, in the form that settings and key files accept.

    Unsalted SHA-256 protects random keys; it does not protect keys that can be guessed.
    """
    return _SHA256 + _sha256(key.encode()).hex()


def _digest_of(key: str) -> bytes:
    """The digest of a plain key, or of a key that is given as a digest."""
    if not key.startswith(_SHA256):
        return _sha256(key.encode())
    digest = bytes.fromhex(key.removeprefix(_SHA256))
    if len(digest) != sha256().digest_size:
        raise ValueError(len(digest))
    return digest


def _state(file: Path) -> tuple[int, int, int]:
    """Changes when the file is edited or replaced by another file."""
    try:
        stat = file.stat()
    except OSError as problem:
        raise BadSettings(f"cannot read --api-keys-file {file}: {problem.strerror}") from None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


class ApiKeyMiddleware:
    """Refuses requests without an accepted key, before their body is read.

    The owner of the key is stored in the scope under `CALLER`.

    Args:
        keys: each of them allows every path. If empty, no request needs a key.
        is_open: whether a GET of this path needs no key.
        render: renders an error in the format of the request's API.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        is_open: Callable[[str], bool],
        render: Callable[[RankError, Scope], Response],
    ) -> None:
        self._app = app
        self._keys = keys
        self._is_open = is_open
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and not self._is_allowed(scope):
            problem = AuthenticationFailed(
                key_error(scope["headers"], scope.get("query_string", b""), _SCHEMES)
            )
            await self._render(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if scope["method"] in ("GET", "HEAD") and self._is_open(scope["path"]):
            return True
        for key in sent_keys(scope["headers"]):
            if (owner := self._keys.owner(key)) is not None:
                scope[CALLER] = owner
                return True
        return False


def sent_keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Every value in a request's headers that may be an API key."""
    for name, value in headers:
        if name in _KEY_HEADERS:
            yield value.strip()
        elif name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() in _SCHEMES:
                yield rest.strip()
            elif scheme.lower() == b"basic":
                yield from _password(rest)
            elif scheme.lower() == _AWS_SCHEME:
                yield from _access_key_id(rest)
            elif not rest:
                yield scheme  # The key without a scheme.


def _password(encoded: bytes) -> Iterator[bytes]:
    """The password of basic authentication, for URLs such as `http://any:KEY@host`."""
    try:
        yield base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return


def _access_key_id(signature: bytes) -> Iterator[bytes]:
    """The key id of an AWS signature, `Credential=KEY/date/region/service/aws4_request`.

    The signature is not checked: the secret key is not known here. So the key id is the API key.
    """
    if found := _AWS_CREDENTIAL.search(signature):
        yield found[1]


def _sha256(key: bytes) -> bytes:
    return sha256(key).digest()
