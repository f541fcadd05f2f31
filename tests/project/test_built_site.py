"""The built site is complete and self-contained, its build is strict, and its search works."""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_site import ROOT, nav

import pages

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    """The site that `make docs` built."""
    assert (pages.SITE / "index.html").exists(), "run `make docs`"
    return pages.SITE


def test_every_page_of_the_navigation_was_built(site: Path) -> None:
    missing = [
        page
        for page in nav()
        if not (site / page).with_suffix(".html").exists() and not page.endswith("README.md")
    ]

    assert missing == []


def test_no_page_has_dead_links_or_external_resources(site: Path) -> None:
    assert list(pages.flaws(site)) == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [("other.md#here", None), ("other.md#gone", "anchor"), ("gone.md", "page")],
)
def test_the_build_fails_on_dead_links(tmp_path: Path, link: str, complaint: str | None) -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    folder = tmp_path / "build/pages"
    folder.mkdir(parents=True)
    (folder / "index.md").write_text(f"# Home\n\n[link]({link})\n")
    (folder / "other.md").write_text("# Other\n\n## Here\n")

    ended = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ended.returncode == 0) == (complaint is None), ended.stdout + ended.stderr
    if complaint:
        assert f"{complaint} does not exist" in ended.stdout + ended.stderr


# Searches in the page, and posts the results to the test server.
READER = """
<iframe id="page" src="index.html" width="1200" height="800"></iframe>
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const send = (what) => fetch("/seen", { method: "POST", body: JSON.stringify(what) });
document.getElementById("page").onload = async (event) => {
  const inside = event.target.contentDocument;
  const loaded = event.target.contentWindow.performance.getEntriesByType("resource");
  inside.querySelector(".md-search__button").click();
  for (let tries = 0; tries < 200; tries++) {
    await wait(200);
    const shadow = [...inside.querySelectorAll("*")].find((one) => one.shadowRoot)?.shadowRoot;
    const field = shadow?.querySelector("input");
    if (!field) continue;
    if (field.value !== WORDS) {
      field.value = WORDS;
      field.dispatchEvent(new Event("input", { bubbles: true, composed: true }));
    }
    const links = [...shadow.querySelectorAll("a[href]")].map((link) => link.href);
    if (links.length) return send({ found: links, loaded: loaded.map((one) => one.name) });
  }
  send({ found: [], loaded: [] });
};
</script>
"""


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the site, the searching page, and receives its results."""

    seen: queue.Queue[dict[str, Any]]
    words: str

    def do_GET(self) -> None:
        if self.path != "/reader":
            return super().do_GET()
        page = READER.replace("WORDS", json.dumps(self.words)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page)
        return None

    def do_POST(self) -> None:
        self.seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium: install it to test the search")
        pytest.skip("no chromium, which tests the search: apt install chromium")
    return path


@pytest.fixture(params=["max_waiting_tokens", "truncation", "昇腾"])
def searched(
    request: pytest.FixtureRequest, site: Path, chromium: str, tmp_path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A query, and its results in a browser."""

    class Searched(Pages):
        seen: queue.Queue[dict[str, Any]] = queue.Queue()
        words = request.param

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Searched, directory=str(site))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/reader"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        flags += [
            "--remote-debugging-port=0"
        ]  # Without it the browser exits when the page is loaded.
        browser = subprocess.Popen(
            [chromium, *flags, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield request.param, Searched.seen.get(timeout=120)
        finally:
            browser.terminate()
            browser.wait(timeout=30)
            server.shutdown()


def test_the_search_finds_the_page_that_contains_the_words(
    searched: tuple[str, dict[str, Any]],
) -> None:
    words, seen = searched

    page = {"max_waiting_tokens": "configuration", "truncation": "api", "昇腾": "zh/ascend"}
    assert any(f"/{page[words]}.html" in link for link in seen["found"]), seen["found"]
    assert seen["loaded"]
    assert all(name.startswith("http://127.0.0.1:") for name in seen["loaded"]), seen["loaded"]
