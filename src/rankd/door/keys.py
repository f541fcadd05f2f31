"""Lets in who has a key, wherever a client of some vendor puts it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rankd.errors import RankError, Unauthorized

# Headers that hold nothing but the key: Azure's and Pinecone's, and everyone else's.
_BARE = (b"api-key", b"x-api-key")

# Words before it in `Authorization`; in any case.
_SCHEMES = (b"bearer", b"apikey", b"token")


class Keys:
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
        keys: Sequence[str],
        is_open: Callable[[str], bool],
        note: str,
        render: Callable[[RankError, Scope], Response],
    ) -> None:
        self._app = app
        # Digests, so that comparing takes the same time whatever a key's length.
        self._digests = [_digest(key.encode()) for key in keys]
        self._is_open = is_open
        self._note = note
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and not self._may_pass(scope):
            # The words that clients look for.
            problem = Unauthorized("invalid api token: send a key as `Authorization: Bearer KEY`")
            await self._render(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["method"] in ("GET", "HEAD") and self._is_open(scope["path"]):
            return True
        for key in sent_keys(scope["headers"]):
            if self._is_known(key):
                scope[self._note] = _digest(key).hex()[:16]
                return True
        return False

    def _is_known(self, key: bytes) -> bool:
        digest = _digest(key)
        return any(hmac.compare_digest(digest, known) for known in self._digests)


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
