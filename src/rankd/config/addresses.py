"""Addresses that clients on this machine use for a listen address."""

from __future__ import annotations

import ipaddress
import socket

# A wildcard listens on every address, and is itself no address to connect to.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def connect_host(listen_host: str) -> str:
    """The host to connect to: loopback for a wildcard, otherwise the listen address itself."""
    return _LOOPBACK.get(listen_host, listen_host)


def is_reachable(host: str) -> bool:
    """Whether other machines can connect to this listen address; False for an unknown name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        return False
    return not all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
