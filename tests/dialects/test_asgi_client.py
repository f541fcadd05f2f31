"""The in-process ASGI client sends what a server would send, and collects the response."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from rankd.dialects.asgi_client import AsgiClient

pytestmark = pytest.mark.anyio


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in two parts: the method, path and extra scope entry, then the body."""
    body = (await receive())["body"]
    headers = [(b"X-Length", dict(scope["headers"])[b"content-length"])]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    start = f"{scope['method']} {scope['path']} {scope['extra']} "
    await send({"type": "http.response.body", "body": start.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": body})


async def test_the_response_has_status_headers_and_the_whole_body() -> None:
    client = AsgiClient(echo, {"extra": "of all"})

    response = await client.request("POST", "/path", b"text", scope={"extra": "of one"})

    assert (response.status, response.headers) == (201, {"x-length": "4"})
    assert response.body == b"POST /path of one text"


async def test_exceptions_of_the_app_are_raised() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await AsgiClient(broken).request("GET", "/")


async def test_the_app_sees_a_disconnect_once_the_event_is_set() -> None:
    messages, started = [], asyncio.Event()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            messages.append((await receive())["type"])
            started.set()

    disconnected = asyncio.Event()
    request = asyncio.create_task(
        AsgiClient(listening).request("GET", "/", disconnected=disconnected)
    )
    await started.wait()
    disconnected.set()
    response = await request

    assert messages == ["http.request", "http.disconnect"]
    assert response.status == 500
