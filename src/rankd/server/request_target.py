"""Checks the host of a request as RFC 9112, 3.2 demands."""

from __future__ import annotations

import re

import httptools

from rankd.errors import InvalidRequest

# What no host with port contains.
_NO_HOST = re.compile(rb"[\s/?#@\\]")


def check_host(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a request without exactly one host.

    An absolute target, as clients send it to a proxy, replaces the value of the `Host` header.

    Args:
        version: of HTTP, such as 1.1.
        headers: with names in lower case.

    Raises:
        InvalidRequest: `Host` is missing, repeated or malformed, or the version is 0.9.
    """
    if version == "0.9":
        raise InvalidRequest("HTTP/0.9 is not supported; send HTTP/1.1")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version != "1.0"):
        raise InvalidRequest(
            f"the request has {len(hosts)} Host headers; HTTP/1.1 demands exactly one"
        )
    if hosts and _NO_HOST.search(hosts[0]):
        raise InvalidRequest("the Host header is not a host with an optional port")
    if target[:1] not in (b"/", b"*"):
        headers[:] = [header for header in headers if header[0] != b"host"]
        headers.append((b"host", _authority(target)))


def _authority(target: bytes) -> bytes:
    """Host and port of an absolute URL."""
    url = httptools.parse_url(target)
    host = b"[%s]" % url.host if b":" in (url.host or b"") else url.host or b""
    return host if url.port is None else b"%s:%d" % (host, url.port)
