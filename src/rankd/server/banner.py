"""What a person sees when a server is ready."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

from fastapi import FastAPI

from rankd import __version__, ui
from rankd.config.settings import Settings
from rankd.ranking.service import ModelService
from rankd.telemetry import terminal

# Where a server is found that listens everywhere.
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}

_WIDEST = 100


def ready(app: FastAPI, settings: Settings, host: str, port: int, stream: TextIO) -> str:
    """One screen for the terminal behind `stream`: what is served, where, and within which limits.

    Args:
        host, port: where it listens.
    """
    service: ModelService = app.state.service
    columns = min(terminal.width(stream), _WIDEST)
    title = f"{service.name} is ready (rankd {__version__})"
    lines = ["", *(terminal.styled(line, "bold", stream) for line in _wrapped(title, columns, 0))]
    lines.append("")
    for label, text in _rows(service, settings, host, port):
        first, *more = _wrapped(text, columns, len(_label(label)))
        lines.append(terminal.styled(_label(label), "faint", stream) + first)
        lines += [" " * len(_label(label)) + line for line in more]
    lines += ["", *_wrapped("Ctrl-C stops it; a second one does not wait for answers.", columns, 0)]
    return "\n".join(lines) + "\n\n"


def _label(name: str) -> str:
    return f"  {name:<8} "


def _wrapped(text: str, columns: int, indent: int) -> list[str]:
    # An address that is broken in two cannot be clicked.
    return textwrap.wrap(
        text, max(10, columns - indent), break_long_words=False, break_on_hyphens=False
    )


def _rows(
    service: ModelService, settings: Settings, host: str, port: int
) -> Iterator[tuple[str, str]]:
    info = service.ranker.engine.info
    yield "Model", f"{info.model}, revision {info.revision}"
    if service.profiles.aliases:
        yield "Names", ", ".join(service.names)
    yield "Engine", f"{info.name} {info.version}".rstrip() + f" on {info.device}, {info.dtype}"
    url = address(settings, _LOCAL.get(host, host), port)
    everywhere = f", and all other addresses of this machine ({host})" if host in _LOCAL else ""
    yield "Address", url + everywhere
    if settings.ui and ui.is_installed():
        yield "Try it", f"{url}/ui"
    yield "Docs", f"{url}/docs"
    yield "Metrics", f"{url}/metrics"
    yield "Keys", _keys(settings)
    yield "Limits", _limits(service, settings)
    if settings.batch_dir is not None:
        yield "Batches", f"in {settings.batch_dir}"


def address(settings: Settings, host: str, port: int) -> str:
    """The URL of a server that listens there."""
    scheme = "https" if settings.ssl_certfile else "http"
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{bracketed}:{port}"


def _keys(settings: Settings) -> str:
    places = [f"{len(settings.api_keys)} given"] if settings.api_keys else []
    places += [f"those of {settings.api_keys_file}"] if settings.api_keys_file else []
    each = (
        (settings.key_requests_per_minute, "requests a minute"),
        (settings.key_tokens_per_minute, "tokens a minute"),
        (settings.key_concurrency, "requests at a time"),
    )
    limits = [f"{most:,} {what}" for most, what in each if most]
    who = f"needed: {' and '.join(places)}" if places else "none needed"
    return f"{who}; each {', '.join(limits)}" if limits else who


# What becomes of documents that do not fit.
_LONGER = {"cut": "longer ones are cut", "refuse": "longer ones refused", "chunk": "more in chunks"}


def _limits(service: ModelService, settings: Settings) -> str:
    body = settings.max_body_bytes / 2**20
    tokens = service.ranker.engine.info.max_tokens
    each = (
        (settings.max_waiting_requests, "requests"),
        (settings.max_waiting_tokens, "tokens"),
    )
    waiting = " and ".join(f"{most:,} {what}" for most, what in each if most)
    return (
        f"{settings.max_documents:,} documents and {body:,.0f} MiB a request; "
        f"{tokens:,} tokens a pair, {_LONGER[settings.truncation]}; "
        f"{waiting or 'any number of requests'} may wait"
    )


def show(app: FastAPI, settings: Settings, host: str, port: int) -> bool:
    """Show it where a person watches; says whether one does."""
    if not terminal.is_terminal(sys.stderr):
        return False
    sys.stderr.write(ready(app, settings, host, port, sys.stderr))
    sys.stderr.flush()
    return True
