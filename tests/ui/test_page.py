"""Which paths of /ui and /docs are served, with which key and headers, and which are not."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest
from fastapi.testclient import TestClient

from rankd import ui
from support.servers import Server, serving
from support.snippets import STATIC

KEY = "a-key-of-the-page-test"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
SWAGGER = STATIC.parent / "swagger"

FILES = sorted(file.name for file in STATIC.iterdir() if file.name != "index.html")
PAGES = ("/ui/", "/docs", "/favicon.ico", *(f"/ui/{name}" for name in FILES))


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server with keys, and a preset that the page must not reveal without one."""
    preset = '{"secret": "Find the confidential text"}'
    flags = ("--engine", "fake", "--api-key", KEY, "--instructions", preset)
    with serving(*flags, "--max-body-bytes", "100000") as server:
        yield server


def get(server: Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers, timeout=60)


@pytest.mark.parametrize("path", PAGES)
def test_files_need_no_key_and_reveal_nothing_about_the_server(guarded: Server, path: str) -> None:
    reply = get(guarded, path)

    assert reply.status_code == 200
    assert "confidential" not in reply.text
    assert KEY not in reply.text


@pytest.mark.parametrize("path", PAGES)
def test_a_strict_policy_forbids_other_hosts_inline_scripts_and_frames(
    guarded: Server, path: str
) -> None:
    headers = get(guarded, path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))

    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("frame-ancestors", "base-uri", "form-action")} == {"'none'"}
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/ui/", "/docs"])
def test_pages_link_to_no_other_host(guarded: Server, path: str) -> None:
    links = re.findall(r'(?:src|href)="([^"]+)"', get(guarded, path).text)

    assert len(links) >= 4
    assert [link for link in links if "//" in link or link.startswith("/")] == []


def test_what_the_page_is_told_needs_a_key(guarded: Server) -> None:
    assert get(guarded, "/ui/config.json").status_code == 401
    reply = get(guarded, "/ui/config.json", **AUTHORIZED)

    assert reply.headers["cache-control"] == "no-store"
    told = reply.json()
    assert told["needs_key"] is True
    assert told["presets"] == {"secret": "Find the confidential text"}
    assert (told["max_documents"], told["max_body_bytes"]) == (1000, 100000)
    assert KEY not in reply.text


def test_the_description_of_the_api_needs_a_key_and_names_the_scheme(guarded: Server) -> None:
    assert get(guarded, "/openapi.json").status_code == 401
    document = get(guarded, "/openapi.json", **AUTHORIZED).json()

    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["security"] == [{"key": []}]
    open_paths = [
        path
        for path, operations in document["paths"].items()
        if operations.get("get", {}).get("security") == []
    ]
    assert {"/livez", "/readyz", "/v1/models"} <= set(open_paths)
    for path in open_paths:
        assert get(guarded, path.replace("{model}", "x")).status_code != 401
    assert "security" not in document["paths"]["/version"]["get"]


def test_without_keys_the_description_names_no_scheme(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert document["paths"]
    assert "security" not in document
    assert "securitySchemes" not in document["components"]


@pytest.mark.parametrize(
    "path",
    [
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/file=/etc/passwd",
        "/ui/config",
        "/ui/index.html",
        "/ui/static/page.css",
        "/ui/../server/app.py",
        "/ui/..%2fpage.py",
        "/ui/%2fetc/passwd",
        "/ui/page.css%00",
        "/ui/page.css%0a",
        "/ui%0a",
        "/ui/PAGE.CSS",
        "/docs/LICENSE",
        "/docs/README.md",
        "/docs/..%2fstatic%2fpage.css",
        "/docs/oauth2-redirect",
        "/redoc",
        *(f"{page}/{'a' * length}" for page in ("/ui", "/docs") for length in (300, 5000, 60000)),
    ],
)
def test_only_the_files_of_the_table_are_served(guarded: Server, path: str) -> None:
    with httpx.Client(timeout=60, headers=AUTHORIZED) as client:
        request = client.build_request("GET", guarded.url + "/ui")
        request.url = request.url.copy_with(raw_path=path.encode())
        reply = client.send(request)

    assert reply.status_code == 404
    assert "nothing is served" in reply.text
    assert len(reply.text) < 1000 + len(path)


def test_unknown_paths_are_not_open(guarded: Server) -> None:
    for path in ("/ui/x", "/docs/x", "/ui/gradio_api/info", "/uikit", f"/ui/{'a' * 300}"):
        assert get(guarded, path).status_code == 401
    assert not ui.page.is_open("/ui/config.json")


@pytest.mark.parametrize("path", ["/dev/zero", "/etc/passwd", "http://127.0.0.1:1/"])
def test_a_request_that_names_a_file_is_a_404_and_the_server_still_answers(
    guarded: Server, path: str
) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file, "x", "x", "x", "x"], "fn_index": 5, "session_hash": "x"}
    for event in ("rank", "predict"):
        reply = httpx.post(
            f"{guarded.url}/ui/gradio_api/run/{event}", json=body, headers=AUTHORIZED, timeout=10
        )
        assert reply.status_code == 404

    assert httpx.get(f"{guarded.url}/livez", timeout=10).status_code == 200


def test_a_file_that_did_not_change_is_not_sent_again(guarded: Server) -> None:
    first = get(guarded, "/ui/app.js")
    tag = first.headers["etag"]
    again = get(guarded, "/ui/app.js", **{"if-none-match": f'"other", W/{tag}'})
    other = get(guarded, "/ui/app.js", **{"if-none-match": '"other"'})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert (other.status_code, other.content) == (200, first.content)


def test_head_has_the_headers_of_get_and_no_body(guarded: Server) -> None:
    for path in PAGES:
        head, full = httpx.head(guarded.url + path), get(guarded, path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag"):
            assert head.headers[name] == full.headers[name]


def test_other_methods_need_a_key_and_are_refused(guarded: Server) -> None:
    for path in ("/ui/", "/ui/app.js", "/docs", "/docs/docs.js"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert httpx.request(method, guarded.url + path).status_code == 401
            refused = httpx.request(method, guarded.url + path, headers=AUTHORIZED)
            assert refused.status_code == 405


def test_other_origins_cannot_read_the_page(guarded: Server) -> None:
    headers = get(guarded, "/ui/", origin="https://evil.example").headers

    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(("path", "location"), [("/ui", "ui/"), ("/docs/", "../docs")])
def test_redirects_are_relative(guarded: Server, path: str, location: str) -> None:
    reply = get(guarded, path)

    assert reply.status_code == 307
    assert reply.headers["location"] == location


def test_the_files_of_swagger_ui_are_those_of_the_named_release() -> None:
    readme = (SWAGGER / "README.md").read_text(encoding="utf-8")
    sums = dict(re.findall(r"^    ([0-9a-f]{64})  (\S+)$", readme, re.MULTILINE))

    assert len(sums) == 2
    for digest, name in sums.items():
        assert sha256((SWAGGER / name).read_bytes()).hexdigest() == digest
    [version] = re.findall(r"swagger-ui-dist (\d+\.\d+\.\d+)", readme)
    assert f'"{version}"' in (SWAGGER / "swagger-ui-bundle.js").read_text(encoding="utf-8")
    assert "Apache License" in (SWAGGER / "LICENSE").read_text(encoding="utf-8")


def test_a_visit_is_one_line_of_the_log_and_its_files_are_lines_for_debugging() -> None:
    with serving("--engine", "fake") as server:
        for path in ("/ui/", *(f"/ui/{name}" for name in FILES), "/ui/x"):
            get(server, path)
        _, log = server.stop(signal.SIGTERM)

    paths = [json.loads(line).get("path") for line in log.splitlines()]
    assert [path for path in paths if path and path.startswith("/ui")] == ["/ui/", "/ui/x"]


def test_no_ui_leaves_the_page_out_and_keeps_the_docs() -> None:
    with serving("--engine", "fake", "--no-ui") as server:
        assert get(server, "/ui").status_code == 404
        assert get(server, "/ui/app.js").status_code == 404
        assert "nothing is served at /ui;" in get(server, "/ui").text
        assert get(server, "/docs").status_code == 200
