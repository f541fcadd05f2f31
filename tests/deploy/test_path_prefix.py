"""A server at `/rank` behind nginx, which removes the prefix, or does not as AWS' balancers do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest

from support.nginx_server import judged, running
from support.servers import free_port, serving

pytestmark = pytest.mark.deploy

KEY = "a-key-of-the-prefix-test"
BODY = {"query": "What is the capital of China?", "documents": ["Beijing.", "Bread."]}
HTML = {"accept": "text/html"}

_CONFIGURATION = """
daemon off;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        absolute_redirect off;
        location /rank/ {{
            proxy_pass http://127.0.0.1:{server}{slash};
        }}
    }}
}}
"""


@pytest.fixture(scope="module", params=["removed", "kept"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL in front of nginx."""
    folder = tmp_path_factory.mktemp("nginx")
    kept = request.param == "kept"
    port, server = free_port(), free_port()
    main = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(
        _CONFIGURATION.format(
            folder=folder, user=user, port=port, server=server, slash="" if kept else "/"
        )
    )
    judged(main)
    flags = ["--api-key", KEY, "--batch-dir", str(folder / "batches")]
    # Only the proxy that keeps the prefix needs a setting.
    flags += ["--root-path", "/rank"] if kept else []
    with serving("--engine", "fake", *flags, port=server), running(main, port) as nginx:
        yield f"{nginx.url}/rank"


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(headers={"api-key": KEY}, timeout=60) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/rerank", "/cohere/v2/rerank", "/plain/rerank", "/"])
def test_documents_are_ranked_without_a_warning(http: httpx.Client, base: str, path: str) -> None:
    reply = http.post(base + path, json=BODY)

    assert reply.status_code == 200
    assert len(reply.json()["results"]) == 2
    assert "x-rankd-warnings" not in reply.headers


def test_a_doubled_path_is_served_with_a_warning(http: httpx.Client, base: str) -> None:
    reply = http.post(f"{base}/v1/rerank/rerank", json=BODY)

    assert reply.status_code == 200
    assert "correct the client's base URL" in reply.headers["x-rankd-warnings"]


def test_nothing_is_open_that_is_closed_without_a_proxy(base: str) -> None:
    for path in ("/metrics", "/v1/files", "/version"):
        assert httpx.get(base + path).status_code == 401, path
    assert httpx.get(f"{base}/health").status_code == 200


def test_the_description_names_this_server(http: httpx.Client, base: str) -> None:
    document = http.get(f"{base}/openapi.json")
    [server] = document.json()["servers"]
    target = urljoin(str(document.url), server["url"]).rstrip("/") + "/v1/rerank"

    assert target == f"{base}/v1/rerank"
    assert http.post(target, json=BODY).status_code == 200


def test_a_browser_is_sent_to_a_page_that_is_there(http: httpx.Client, base: str) -> None:
    reply = http.get(f"{base}/", headers=HTML, follow_redirects=True)

    assert reply.status_code == 200
    assert str(reply.url).startswith(f"{base}/")
    assert "text/html" in reply.headers["content-type"]


@pytest.mark.parametrize("path", ["/ui/", "/docs"])
def test_the_pages_and_what_they_fetch_are_served(http: httpx.Client, base: str, path: str) -> None:
    page = http.get(base + path.rstrip("/"), follow_redirects=True)
    found = re.findall(r'(?:src|href)="([^"]+\.\w+)"', page.text)

    assert str(page.url) == base + path
    assert len(found) > 2
    for url in found:
        assert http.get(urljoin(str(page.url), url)).status_code == 200, url


def test_a_batch_job_runs_and_its_files_are_read(http: httpx.Client, base: str) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/rerank", "body": BODY}
    upload = http.post(
        f"{base}/v1/files",
        files={"file": ("in.jsonl", json.dumps(line))},
        data={"purpose": "batch"},
    ).json()
    job = http.post(
        f"{base}/v1/batches",
        json={
            "input_file_id": upload["id"],
            "endpoint": "/v1/rerank",
            "completion_window": "24h",
        },
    ).json()
    while job["status"] not in ("completed", "failed"):
        job = http.get(f"{base}/v1/batches/{job['id']}").json()
    output = http.get(f"{base}/v1/files/{job['output_file_id']}/content")

    assert job["status"] == "completed", job
    assert output.json()["response"]["status_code"] == 200
