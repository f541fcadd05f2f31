"""HTTPS: what uvicorn is told of certificates, and what is wrong with them."""

from __future__ import annotations

import ssl
from typing import Any

from rankd.errors import BadSettings
from rankd.settings import Settings


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options; none when there is no certificate.

    Authorities in --ssl-ca-certs make a client's certificate a condition: uvicorn reads
    them, too, when it does not ask for one.
    """
    if settings.ssl_certfile is None:
        return {}
    options: dict[str, Any] = {
        "ssl_certfile": str(settings.ssl_certfile),
        "ssl_keyfile": None if settings.ssl_keyfile is None else str(settings.ssl_keyfile),
        "ssl_keyfile_password": settings.ssl_keyfile_password,
    }
    if settings.ssl_ca_certs is not None:
        options |= {
            "ssl_ca_certs": str(settings.ssl_ca_certs),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    return options


def check_tls(settings: Settings) -> None:
    """Look at the files before a model is loaded for minutes.

    Raises:
        BadSettings: one is missing or cannot be used; says which.
    """
    if settings.ssl_certfile is None:
        for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(settings, name) is not None:
                raise BadSettings(f"{name} is of no use without ssl_certfile")
        return
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        file = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()
        except OSError as problem:
            raise BadSettings(f"cannot read {name} {file}: {problem.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(
            settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_keyfile_password or ""
        )
    except (ssl.SSLError, ValueError) as problem:
        raise BadSettings(
            f"ssl_certfile {settings.ssl_certfile} and its key cannot be used: {problem}"
        ) from None
    if settings.ssl_ca_certs is not None:
        try:
            context.load_verify_locations(settings.ssl_ca_certs)
        except ssl.SSLError as problem:
            raise BadSettings(
                f"ssl_ca_certs {settings.ssl_ca_certs} cannot be used: {problem}"
            ) from None
