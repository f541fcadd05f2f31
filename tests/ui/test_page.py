"""Which paths of /ui are served, with which key, and which are not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from rankd import ui
from support.servers import Server, serving

KEY = "a-key-of-the-page-test"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server with keys, and a preset that the page must not reveal without one."""
    preset = '{"secret": "Find the confidential text"}'
    flags = ("--engine", "fake", "--api-key", KEY, "--instructions", preset)
    with serving(*flags, "--max-body-bytes", "100000") as server:
        yield server


def get(server: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers, timeout=60)


@pytest.mark.ui
def test_the_page_needs_no_key_and_reveals_nothing_about_the_server(guarded: Server) -> None:
    reply = get(guarded, "/ui/")

    assert reply.status_code == 200
    assert "<gradio-app" in reply.text
    assert "confidential" not in reply.text
    assert KEY not in reply.text


@pytest.mark.ui
def test_the_page_links_to_no_other_host_and_its_policy_forbids_it(guarded: Server) -> None:
    reply = get(guarded, "/ui/")
    policy = reply.headers["content-security-policy"]

    # Elements whose URL a browser fetches by itself.
    assert (
        re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//', reply.text)
        == []
    )
    assert "iframeResizer.contentWindow" not in reply.text
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.ui
@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=https://example.com",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/x",
        "/gradio_api/info",
        "/gradio_api/startup-events",
        "/gradio_api/runs",
        "/config",
        "/monitoring",
        "/svelte/x",
    ],
)
def test_all_other_paths_of_gradio_are_not_served(guarded: Server, path: str) -> None:
    assert get(guarded, f"/ui{path}").status_code == 401
    reply = get(guarded, f"/ui{path}", authorization=f"Bearer {KEY}")

    assert reply.status_code == 404
    assert "nothing is served" in reply.text


@pytest.mark.ui
@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/static//etc/passwd",
        "/assets/%2fetc/passwd",
    ],
)
def test_no_path_leads_out_of_the_assets_folder(guarded: Server, path: str) -> None:
    with httpx.Client(timeout=60) as client:
        request = client.build_request("GET", guarded.url + "/ui")
        request.url = request.url.copy_with(raw_path=f"/ui{path}".encode())
        reply = client.send(request)

    assert reply.status_code in (401, 403, 404)
    assert "root:" not in reply.text


@pytest.mark.ui
def test_events_need_a_key_and_obey_the_body_limit(guarded: Server) -> None:
    url = f"{guarded.url}/ui/gradio_api/run/predict"
    body = {"data": [], "fn_index": 0, "session_hash": "x"}

    refused = httpx.post(url, json=body)
    assert refused.status_code == 401
    large = httpx.post(
        url, content=b"x" * 200_000, headers={"authorization": f"Bearer {KEY}"}, timeout=60
    )
    assert large.status_code == 413


@pytest.mark.ui
def test_an_invalid_event_is_a_422(guarded: Server) -> None:
    url = f"{guarded.url}/ui/gradio_api/run/predict"
    reply = httpx.post(url, content=b"{}", headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    assert reply.status_code == 422


@pytest.mark.ui
def test_other_origins_cannot_read_the_page(guarded: Server) -> None:
    for path in ("/ui/", "/ui/theme.css"):
        headers = get(guarded, path, origin="https://evil.example").headers
        assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.ui
def test_only_get_and_head_are_open(guarded: Server) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert httpx.request(method, f"{guarded.url}/ui/").status_code == 401
        assert httpx.request(method, f"{guarded.url}/ui/", headers=headers).status_code == 405
    assert httpx.head(f"{guarded.url}/ui/", timeout=60).status_code == 200


@pytest.mark.ui
def test_without_a_slash_the_redirect_is_relative(guarded: Server) -> None:
    reply = get(guarded, "/ui")

    assert reply.status_code == 307
    assert reply.headers["location"] == "ui/"


def test_only_the_page_and_its_assets_are_open() -> None:
    assert ui.is_open("/ui")
    assert ui.is_open("/ui/assets/index.js")
    assert not ui.is_open("/ui/gradio_api/run/predict")
    assert not ui.is_open("/uikit")
    assert not ui.is_open("/ui/config")


def test_a_server_does_not_import_gradio_at_start() -> None:
    program = (
        "import asyncio, sys\n"
        "from rankd.server.app import open_app\n"
        "from rankd.config.settings import Settings\n"
        "async def start():\n"
        "    async with open_app(Settings(engine='fake')): pass\n"
        "asyncio.run(start())\n"
        "assert 'rankd.ui' in sys.modules\n"
        "assert 'gradio' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr


def test_without_gradio_the_404_says_how_to_install_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankd.ui.page.find_spec", lambda name: None)

    reply = client.get("/ui")

    assert reply.status_code == 404
    assert "pip install 'rankd[ui]'" in reply.json()["error"]["message"]


def rank(server: Server, *fields: object, timeout: float = 60) -> httpx.Response:
    """Send the event of the button Rerank."""
    page = get(server, "/ui/").text
    config = page[page.index("{", page.index("window.gradio_config =")) :]
    dependencies = json.JSONDecoder().raw_decode(config)[0]["dependencies"]
    event_id = next(event["id"] for event in dependencies if event["api_name"] == "rank")
    body = {"data": fields, "fn_index": event_id, "session_hash": "a-page"}
    return httpx.post(f"{server.url}/ui/gradio_api/run/predict", json=body, timeout=timeout)


@pytest.mark.ui
def test_failed_and_aborted_events_are_logged_without_texts() -> None:
    long = "\n".join(f"{index} secret{' word' * 3000}" for index in range(300))
    with serving("--threads", "1") as server:
        unknown = rank(server, "secret", "secret", "", "secret", "secret")
        strange = rank(server, {"secret": 1}, ["secret"], None, 7, [])
        short = rank(server, "secret")
        with pytest.raises(httpx.TimeoutException):
            rank(server, "secret", "", "", long, "lines", timeout=1)
        after = rank(server, "q", "", "", "one", "lines")
        _, log = server.stop(signal.SIGTERM)

    assert "is not known" in unknown.text
    assert "no documents" in strange.text
    assert short.status_code == 500
    assert after.status_code == 200
    lines = [json.loads(line) for line in log.splitlines()]
    statuses = [line["status"] for line in lines if "predict" in line.get("path", "")]
    assert statuses == [200, 200, 500, 499, 200]
    assert "secret" not in log


@pytest.mark.ui
def test_no_ui_leaves_the_page_out() -> None:
    with serving("--engine", "fake", "--no-ui") as server:
        assert get(server, "/ui").status_code == 404
        assert "nothing is served at /ui;" in get(server, "/ui").text
