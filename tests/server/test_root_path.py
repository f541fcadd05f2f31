"""Behind a proxy at `/rank`, which removes the prefix or does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from rankd import dialects
from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.server import banner
from support.calling import calling

BODY = {"query": "q", "documents": ["a", "b"]}
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(
        engine="fake",
        root_path="/rank/er/",
        api_keys=("k",),
        batch_dir=tmp_path_factory.mktemp("batches"),
    )
    with calling(settings) as client:
        client.headers["api-key"] = "k"
        yield client


@pytest.mark.parametrize("root", ["", "/rank/er", "/rank//er/"])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/cohere/v1/models", "/docs", "/openapi.json", "/metrics", "/v1/files"]
)
def test_every_path_is_served_with_and_without_the_root_path(
    rooted: TestClient, root: str, path: str
) -> None:
    assert rooted.get(root + path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/rerank", "/cohere/v2/rerank", "/", "/simple/rerank"])
def test_rankings_under_the_root_path_have_no_warning(rooted: TestClient, path: str) -> None:
    reply = rooted.post(f"/rank/er{path}", json=BODY)

    assert reply.status_code == 200
    assert "x-rankd-warnings" not in reply.headers


def test_a_wrong_path_under_the_root_path_is_corrected(rooted: TestClient) -> None:
    reply = rooted.post("/rank/er/v1/rerank/rerank", json=BODY)

    assert reply.status_code == 200
    assert (
        "POST /rank/er/v1/rerank/rerank was read as POST /rerank"
        in (reply.headers["x-rankd-warnings"])
    )


@pytest.mark.parametrize("path", ["/rank/er/metrics", "/rank/er/v1/files", "/rank/erx/v1/models"])
def test_the_root_path_opens_nothing_without_a_key(rooted: TestClient, path: str) -> None:
    assert rooted.get(path, headers={"api-key": "wrong"}).status_code == 401


def test_the_open_paths_are_open_under_the_root_path(rooted: TestClient) -> None:
    assert rooted.get("/rank/er/health", headers={"api-key": "wrong"}).status_code == 200


def test_metrics_have_no_root_path(rooted: TestClient) -> None:
    rooted.post("/rank/er/v1/rerank", json=BODY)

    text = rooted.get("/metrics").text
    assert 'rankd_requests_total{route="/v1/rerank",status="200"}' in text
    assert "rank/er" not in text


def test_openapi_names_the_root_path_as_its_server(rooted: TestClient) -> None:
    assert rooted.get("/openapi.json").json()["servers"] == [{"url": "/rank/er"}]


@pytest.mark.parametrize("public", ["/docs", "/rank/docs", "/a/b/docs"])
def test_the_docs_find_their_files_and_the_server_behind_any_prefix(
    client: TestClient, public: str
) -> None:
    """A proxy that removes the prefix needs no setting, as every URL is relative."""
    address = f"https://host{public}"
    base = address.removesuffix("docs")
    files = re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text)
    [server] = client.get("/openapi.json").json()["servers"]

    assert len(files) > 3
    for file in files:
        path = urljoin(address, file).removeprefix(base)
        assert client.get(f"/{path}").status_code == 200, file
    assert urljoin(f"{base}openapi.json", server["url"]) == base


@pytest.mark.parametrize("header", ["x-forwarded-prefix", "x-script-name", "x-forwarded-path"])
def test_no_header_of_a_client_changes_a_url(client: TestClient, header: str) -> None:
    forged = {header: "//evil.example/x"}
    for path in ("/openapi.json", "/docs", "/", "/ui"):
        reply = client.get(path, headers=HTML | forged, follow_redirects=False)
        assert "evil" not in reply.text + str(reply.headers)


@pytest.mark.parametrize(("shown", "page"), [(True, "ui"), (False, "docs")])
@pytest.mark.parametrize(("root", "location"), [("", ""), ("/rank", "/rank/")])
def test_a_browser_at_the_base_url_gets_to_the_page_or_the_docs(
    shown: bool, page: str, root: str, location: str
) -> None:
    with calling(Settings(engine="fake", root_path=root, ui=shown)) as client:
        reply = client.get(f"{root}/", headers=HTML, follow_redirects=False)
        others = [client.get("/"), client.get("/", headers={"accept": "application/json"})]

    assert (reply.status_code, reply.headers["location"]) == (307, f"{location}{page}")
    assert reply.headers["vary"] == "accept"
    for other in others:
        assert (other.status_code, other.json()) == (200, {"status": "ready"})
        assert other.headers["vary"] == "accept"


@pytest.mark.parametrize("root", ["rank", "/ra nk", "/a/../b", "/a//b", "http://h/x", "/a?b", "/."])
def test_what_is_no_path_is_refused(root: str) -> None:
    with pytest.raises(BadSettings, match="is no path such as /rank"):
        load({"root_path": root}, {})


@pytest.mark.parametrize("root", ["/v1", "/cohere", "/ui/x", "/docs", "/rerank", "/_inference"])
def test_a_root_path_that_begins_like_the_api_is_refused(root: str) -> None:
    refused = pytest.raises(BadSettings, match="begins like a path of the API")
    with refused, calling(Settings(engine="fake", root_path=root)):
        pass


def test_every_first_segment_of_the_api_is_known(client: TestClient) -> None:
    paths = {spec.path for spec in dialects.route_specs()}
    paths |= set(client.get("/openapi.json").json()["paths"])
    firsts = {path[1:].partition("/")[0] for path in paths} - {""}
    assert len(firsts) > 20
    for first in firsts:
        with pytest.raises(BadSettings, match="begins like a path of the API"):
            _refuse(client, f"/{first}")


def _refuse(client: TestClient, root: str) -> None:
    from rankd.server.app import _refuse_root_path

    _refuse_root_path(client.app, root)  # type: ignore[arg-type]


def test_the_summary_shows_the_address_with_the_root_path(tmp_path: Path) -> None:
    settings = Settings(root_path="/rank")

    assert banner.address(settings, "127.0.0.1", 8000) == "http://127.0.0.1:8000/rank"
