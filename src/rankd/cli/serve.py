"""`rankd serve`: starts the server."""

from __future__ import annotations

import argparse
import logging

from rankd.cli.common import configure_logging, given_flags, load_settings, write_line
from rankd.config.addresses import is_reachable
from rankd.config.settings import Settings
from rankd.config.show import shown
from rankd.config.sources import sources
from rankd.telemetry import terminal

_log = logging.getLogger("rankd")


async def run(options: argparse.Namespace) -> int:
    """Serve until a signal, or print the settings; returns the exit status."""
    settings = load_settings(options)
    if options.print_config:
        terminal.use_utf8()
        write_line(shown(settings, sources(given_flags(options), config=options.config)))
        return 0

    from rankd.server.run import serve
    from rankd.server.tls import check_tls

    configure_logging(settings)
    check_tls(settings)
    _warn_if_open(settings)
    _warn_if_texts_are_logged(settings)
    return await serve(settings)


def _warn_if_open(settings: Settings) -> None:
    if settings.api_keys or settings.api_keys_file or not is_reachable(settings.host):
        return
    _log.warning("anyone who reaches %s may use this server: it has no --api-key", settings.host)


def _warn_if_texts_are_logged(settings: Settings) -> None:
    if settings.log_texts:
        _log.warning("--log-texts: queries, instructions and documents are written to this log")
