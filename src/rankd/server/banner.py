"""Renders the summary that a terminal shows when the server is ready."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

from fastapi import FastAPI

from rankd import __version__
from rankd.config.addresses import connect_host
from rankd.config.settings import Settings
from rankd.ranking.service import ModelService
from rankd.telemetry import terminal

_MAX_COLUMNS = 100


def ready(app: FastAPI, settings: Settings, host: str, port: int, stream: TextIO) -> str:
    """The summary, wrapped and styled for the terminal behind `stream`.

    Args:
        host, port: where the server listens.
    """
    service: ModelService = app.state.service
    columns = min(terminal.width(stream), _MAX_COLUMNS)
    title = f"{service.name} is ready (rankd {__version__})"
    lines = ["", *(terminal.styled(line, "bold", stream) for line in _wrapped(title, columns, 0))]
    lines.append("")
    for label, text in _rows(service, settings, host, port):
        first, *more = _wrapped(text, columns, len(_label(label)))
        lines.append(terminal.styled(_label(label), "faint", stream) + first)
        lines += [" " * len(_label(label)) + line for line in more]
    lines += [
        "",
        *_wrapped(
            "Ctrl-C stops the server; a second Ctrl-C does not wait for requests.", columns, 0
        ),
    ]
    return "\n".join(lines) + "\n\n"


def _label(name: str) -> str:
    return f"  {name:<8} "


def _wrapped(text: str, columns: int, indent: int) -> list[str]:
    # A URL that is broken over two lines cannot be clicked.
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
    yield "Engine", info.summary
    url = address(settings, connect_host(host), port)
    is_wildcard = connect_host(host) != host
    others = f", and all other addresses of this machine ({host})" if is_wildcard else ""
    yield "Address", url + others
    if settings.ui:
        yield "Try it", f"{url}/ui"
    yield "Docs", f"{url}/docs"
    yield "Metrics", f"{url}/metrics"
    yield "Keys", _keys(settings)
    yield "Limits", _limits(service, settings)
    if settings.batch_dir is not None:
        yield "Batches", f"in {settings.batch_dir}"


def address(settings: Settings, host: str, port: int) -> str:
    """The base URL of a server at this host and port, with its root path."""
    scheme = "https" if settings.ssl_certfile else "http"
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{bracketed}:{port}{settings.root_path}"


def _keys(settings: Settings) -> str:
    sources = [f"{len(settings.api_keys)} given"] if settings.api_keys else []
    sources += [f"those of {settings.api_keys_file}"] if settings.api_keys_file else []
    limits = _nonzero(
        (settings.key_requests_per_minute, "requests a minute"),
        (settings.key_tokens_per_minute, "tokens a minute"),
        (settings.key_concurrency, "requests at a time"),
    )
    required = f"needed: {' and '.join(sources)}" if sources else "none needed"
    return f"{required}; each {', '.join(limits)}" if limits else required


_TRUNCATION = {
    "cut": "longer ones are cut",
    "refuse": "longer ones are refused",
    "chunk": "longer ones are read in chunks",
}


def _limits(service: ModelService, settings: Settings) -> str:
    body = settings.max_body_bytes / 2**20
    tokens = service.ranker.engine.info.max_tokens
    waiting = _nonzero(
        (settings.max_waiting_requests, "requests"), (settings.max_waiting_tokens, "tokens")
    )
    return (
        f"{settings.max_documents:,} documents and {body:,.0f} MiB a request; "
        f"{tokens:,} tokens a pair, {_TRUNCATION[settings.truncation]}; "
        f"{' and '.join(waiting) or 'any number of requests'} may wait"
    )


def _nonzero(*limits: tuple[int, str]) -> list[str]:
    return [f"{limit:,} {unit}" for limit, unit in limits if limit]


def show(app: FastAPI, settings: Settings, host: str, port: int) -> bool:
    """Write the summary to standard error if it is a terminal; returns whether it is one."""
    if not terminal.is_terminal(sys.stderr):
        return False
    sys.stderr.write(ready(app, settings, host, port, sys.stderr))
    sys.stderr.flush()
    return True
