"""Fixtures of the client tests: both clients, and a running rankd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.scripted_server import CallClient, call_async, call_sync
from support.servers import serving


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> CallClient:
    """`Client` or `AsyncClient`: each test runs with both."""
    function: CallClient = request.param
    return function


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("--engine", "fake", "--max-documents", "500") as server:
        yield server.url
