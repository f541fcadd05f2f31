"""Sends status messages to systemd (`Type=notify`); does nothing elsewhere.

Each message is one datagram: https://www.freedesktop.org/software/systemd/man/sd_notify.html.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def notify(*lines: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send lines of the form `NAME=value` to the socket in `NOTIFY_SOCKET`.

    Args:
        environment: default `os.environ`.

    Returns:
        Whether the message was sent. Errors are ignored: the server works without systemd.
    """
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    message = "\n".join(line.replace("\n", " ") for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # A full receive queue must not delay requests.
            # A leading @ stands for the zero byte of an abstract address.
            sender.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            sender.send(message.encode())
    except (OSError, ValueError):
        return False
    return True
