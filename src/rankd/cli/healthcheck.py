"""Asks the server on this machine whether it is ready: the health check of a container."""

from __future__ import annotations

import http.client
import ssl

from rankd.config.addresses import connect_host
from rankd.config.settings import Settings
from rankd.errors import SetupError

# Seconds for the whole question; Docker's own limit is 5.
_PATIENCE = 4.0


def probe(settings: Settings) -> None:
    """Ask `/readyz` where these settings make a server listen, with HTTPS when they do.

    Raises:
        SetupError: it is not ready, or there is none; says why.
    """
    host = connect_host(settings.host)
    connection = _connection(host, settings)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        said = reply.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as problem:
        raise SetupError(f"nothing answers at {host}:{settings.port}: {problem!r}") from None
    finally:
        connection.close()
    if reply.status != 200:
        raise SetupError(f"not ready: {reply.status} {said}")


def _connection(host: str, settings: Settings) -> http.client.HTTPConnection:
    if settings.ssl_certfile is None:
        return http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE)
    # The certificate names the server as others call it; nothing secret is said here.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.ssl_ca_certs is not None:
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password or ""
        )
    return http.client.HTTPSConnection(host, settings.port, timeout=_PATIENCE, context=context)
