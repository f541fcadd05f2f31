"""A test client of the app in this process, with one event loop for all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.server.app import open_app


@contextmanager
def calling(settings: Settings) -> Iterator[TestClient]:
    """A test client of the whole app with these settings; no server and no port."""
    with asyncio.Runner() as runner:
        context = open_app(settings)
        app = runner.run(context.__aenter__())
        client = TestClient(app, raise_server_exceptions=False)
        # Without a portal, the client starts a thread and a loop for every request.
        with start_blocking_portal() as client.portal:
            yield client
        runner.run(context.__aexit__(None, None, None))
