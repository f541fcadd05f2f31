"""`rankd probe`: a container's health check, asks the local server whether it is ready."""

from __future__ import annotations

import argparse
import http.client
import ssl

from rankd.cli.common import load_settings
from rankd.config.addresses import connect_host
from rankd.config.settings import Settings
from rankd.errors import SetupError

# Seconds for connecting and for each read. Docker kills a health check after 5.
_TIMEOUT = 4.0


async def run(options: argparse.Namespace) -> int:
    """Returns 0 if the server is ready.

    Raises:
        SetupError: it is not ready, or nothing answers.
    """
    _probe(load_settings(options))
    return 0


def _probe(settings: Settings) -> None:
    """GET `/readyz` at the settings' address, with HTTPS if they have a certificate."""
    host = connect_host(settings.host)
    connection = _connection(host, settings)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        body = reply.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as problem:
        raise SetupError(f"nothing answers at {host}:{settings.port}: {problem!r}") from None
    finally:
        connection.close()
    if reply.status != 200:
        raise SetupError(f"not ready: {reply.status} {body}")


def _connection(host: str, settings: Settings) -> http.client.HTTPConnection:
    if settings.ssl_certfile is None:
        return http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT)
    # The certificate has the server's public name, not this address. The request has no secrets.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.ssl_ca_certs is not None:
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password or ""
        )
    return http.client.HTTPSConnection(host, settings.port, timeout=_TIMEOUT, context=context)
