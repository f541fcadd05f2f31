"""Web pages cannot make a browser use a server on its own machine: `Host`, `Origin` and others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.server.app import open_app
from support.servers import Server, serving

BODY = {"query": "capital of China", "documents": ["Beijing", "Lions"]}
FORM: Any = {"file": ("f.jsonl", b"{}"), "purpose": (None, "batch")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = str(tmp_path_factory.mktemp("batches"))
    with serving("--engine", "fake", "--batch-dir", folder) as server:
        yield server


def post(server: Server, path: str = "/v1/rerank", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(server.url + path, json=BODY, headers=names)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/models", "/metrics", "/livez", "/v1/files"])
def test_a_name_that_was_pointed_at_this_machine_is_refused(
    server: Server, host: str, path: str
) -> None:
    method = "POST" if path == "/v1/rerank" else "GET"
    reply = httpx.request(method, server.url + path, json=BODY, headers={"host": host})

    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "forbidden_origin"
    assert "--allowed-hosts" in reply.json()["message"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:9000"]
)
def test_names_of_this_machine_are_served_with_any_port(server: Server, host: str) -> None:
    assert post(server, host=host).status_code == 200


@pytest.mark.parametrize(("lines", "status"), [(b"", b"200"), (b"Host: evil.example\r\n", b"403")])
def test_probes_of_http_1_0_need_no_host(server: Server, lines: bytes, status: bytes) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n" + lines + b"\r\n")

        assert client.recv(4096).split()[1] == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "http://localhost:3000", "sec_fetch_site": "same-site"},
    ],
)
@pytest.mark.parametrize("type_", ["application/json", "text/plain"])
def test_a_post_of_another_origin_is_refused(
    server: Server, headers: dict[str, str], type_: str
) -> None:
    reply = post(server, content_type=type_, **headers)

    assert reply.status_code == 403
    assert "--cors-origins" in reply.json()["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_files_of_batch_jobs_cannot_be_changed_from_another_origin(
    server: Server, method: str
) -> None:
    origin = {"origin": "https://evil.example"}
    reply = httpx.request(method, f"{server.url}/v1/files", headers=origin, files=FORM)
    kept = httpx.get(f"{server.url}/v1/files").json()["data"]

    assert reply.status_code == 403
    assert kept == []


def test_the_servers_own_page_and_what_a_user_types_are_served(server: Server) -> None:
    own = post(server, origin=server.url)
    behind_a_proxy = post(
        server, origin="https://rank.example", sec_fetch_site="same-origin", host="localhost"
    )
    typed = post(server, sec_fetch_site="none")
    read = httpx.get(f"{server.url}/v1/models", headers={"origin": "https://evil.example"})

    statuses = [reply.status_code for reply in (own, behind_a_proxy, typed, read)]
    assert statuses == [200] * 4
    assert "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize("path", ["/tei/rerank", "/voyage/v1/rerank", "/v2/rerank", "/v1/score"])
def test_the_refusal_is_in_the_format_of_the_api(server: Server, path: str) -> None:
    reply = post(server, path, origin="https://evil.example")

    assert reply.status_code == 403
    assert "evil.example" in reply.text
    assert reply.headers["x-request-id"]


def test_allowed_hosts_and_origins_are_served() -> None:
    flags = ("--allowed-hosts", "Rank.Example,other.example", "--cors-origins", "https://app.test")
    with serving("--engine", "fake", *flags) as server:
        allowed = [post(server, host=host) for host in ("rank.example:8", "other.example")]
        own = post(server)
        foreign = post(server, host="evil.example")
        page = post(server, origin="https://app.test", sec_fetch_site="cross-site")
        other_page = post(server, origin="https://evil.test")

    assert [reply.status_code for reply in (*allowed, own, page)] == [200] * 4
    assert page.headers["access-control-allow-origin"] == "https://app.test"
    assert [reply.status_code for reply in (foreign, other_page)] == [403, 403]


@pytest.mark.parametrize(
    "flags", [("--api-key", "k"), ("--host", "0.0.0.0"), ("--allowed-hosts=*",)]
)
def test_any_host_is_served_with_keys_elsewhere_and_on_demand(flags: tuple[str, ...]) -> None:
    with serving("--engine", "fake", *flags) as server:
        port = server.url.rsplit(":", 1)[1]
        reply = httpx.post(
            f"http://127.0.0.1:{port}/v1/rerank",
            json=BODY,
            headers={"host": "rank.example", "authorization": "Bearer k"},
        )

    assert reply.status_code == 200


def test_ipv6_loopback_is_named_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    with serving("--engine", "fake", "--host", "::1") as server:
        port = server.url.rsplit(":", 1)[1]
        statuses = [
            httpx.post(f"http://[::1]:{port}/v1/rerank", json=BODY, headers=headers).status_code
            for headers in ({}, {"host": "localhost"}, {"host": "[::2]"})
        ]

    assert statuses == [200, 200, 403]


def test_calls_inside_the_process_have_no_host_to_check() -> None:
    async def ask() -> Any:
        async with open_app(Settings(engine="fake")) as app:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.post("http://any.name/v1/rerank", json=BODY)

    assert asyncio.run(ask()).status_code == 200


@pytest.mark.parametrize("host", ["http://rank.example", "rank.example:80", "a b", "::1"])
def test_what_is_no_host_name_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(BadSettings, match="host name"):
        load({"allowed_hosts": host}, {})


def test_the_test_client_of_starlette_is_served() -> None:
    with asyncio.Runner() as runner:
        context = open_app(Settings(engine="fake"))
        app = runner.run(context.__aenter__())
        status = TestClient(app).post("/v1/rerank", json=BODY).status_code
        runner.run(context.__aexit__(None, None, None))

    assert status == 200
