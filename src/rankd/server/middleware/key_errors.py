"""Says what is wrong with the key of a refused request, and never repeats the key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# Where other servers read keys.
_OTHER_HEADERS = (
    *(b"ocp-apim-subscription-key", b"apikey", b"x-auth-token", b"x-api-token"),
    *(b"x-access-token", b"x-token", b"proxy-authorization"),
)
_IN_QUERY = re.compile(rb"(?:^|&)(?:api[_-]?key|key|(?:access_|api_)?token)=", re.IGNORECASE)

# Schemes of other servers and misspelt ones; no other word is repeated, as it may be a key.
_OTHER_SCHEMES = (
    *(b"api-key", b"api_key", b"x-api-key", b"key", b"bearer:", b"bearer=", b"apikey:", b"digest"),
    *(b"jwt", b"oauth", b"negotiate", b"authorization:"),
)

# What programs send whose variable for the key is not set.
_UNSET = (b"none", b"null", b"undefined", b"nil", b"nan", b"empty")
_TEMPLATE = re.compile(rb"\$\w+|\$?\{.*\}|\$\(.*\)|<.*>|%\w+%", re.DOTALL)

_QUOTES = (b'"', b"'", b"`", b"\xe2\x80\x9c", b"\xe2\x80\x98")


def key_error(
    headers: Iterable[tuple[bytes, bytes]], query: bytes, schemes: Iterable[bytes]
) -> str:
    """One sentence for a request without an accepted key.

    Args:
        query: the query string of the URL.
        schemes: those that may precede a key in `Authorization`, in lower case.
    """
    found = list(_found(headers, frozenset(schemes)))
    if not found and _IN_QUERY.search(query):
        found = ["a key in the URL's query is not read"]
    # Some clients look for the words "invalid api token".
    return (
        f"invalid api token: {(found or ['no key was sent'])[0]}; send `Authorization: Bearer KEY`"
    )


def _found(headers: Iterable[tuple[bytes, bytes]], schemes: frozenset[bytes]) -> Iterator[str]:
    """What was found in each header that holds a key, or was meant to."""
    others = []
    for name, value in headers:
        if name == b"authorization":
            yield _in_authorization(value.strip(), schemes)
        elif name in (b"api-key", b"x-api-key", b"x-goog-api-key"):
            yield _about(value.strip(), name.decode(), schemes)
        elif name in _OTHER_HEADERS:
            others.append(f"a key in the header {name.decode()} is not read")
    yield from others


def _in_authorization(value: bytes, schemes: frozenset[bytes]) -> str:
    scheme, _, rest = value.partition(b" ")
    lower = scheme.lower()
    if lower == b"basic":
        return "the password of Basic authentication is not a known key"
    if lower == b"aws4-hmac-sha256":
        return "the access key id of the AWS signature is not a known key"
    if lower in schemes:
        return _about(rest.strip(), "Authorization", schemes)
    if rest and lower in _OTHER_SCHEMES:
        return f"the scheme {scheme.decode()} in Authorization is not known"
    if rest and value[:1] not in _QUOTES:
        return "the scheme in Authorization is not known"
    return _about(value, "Authorization", schemes)


def _about(key: bytes, header: str, schemes: frozenset[bytes]) -> str:
    """What is odd about the text that was sent as the key."""
    first, _, rest = key.partition(b" ")
    if not key:
        return f"the key in {header} is empty"
    if key.lower() in _UNSET or _TEMPLATE.fullmatch(key):
        return f"{header} holds a placeholder: the client's setting for the key is not set"
    if key.startswith(_QUOTES):
        return f"the key in {header} is in quotes"
    if rest and first.lower() in schemes:
        doubled = "a scheme too many" if header == "Authorization" else "a scheme before the key"
        return f"{header} holds {doubled} ({first.decode()})"
    if rest:
        return f"the key in {header} holds a blank"
    return f"the key in {header} is not known here"
