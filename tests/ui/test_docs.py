"""/docs in Chromium: Swagger UI without other hosts, and with a key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.browser import Browser
from support.servers import Server, serving

pytestmark = pytest.mark.ui

KEY = "a-key-of-the-docs-test"
EXECUTED = ".responses-table.live-responses-table tbody .response-col_status"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--engine", "fake") as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with serving("--engine", "fake", "--api-key", KEY) as server:
        yield server


def visit(browser: Browser, url: str) -> None:
    browser.driver.get(f"{url}/docs")
    browser.run("sessionStorage.clear()")
    browser.driver.get(f"{url}/docs")


def try_version(browser: Browser) -> str:
    """Send `GET /version` from the page; returns the status that it shows."""
    browser.run("document.querySelector('#operations-tag-operations').click()")
    browser.wait("[id$=version_get] .opblock-summary-control").click()
    browser.wait("[id$=version_get] .try-out__btn").click()
    browser.wait("[id$=version_get] .execute").click()
    return browser.wait(EXECUTED).text


def test_the_page_shows_the_api_and_asks_no_other_host(browser: Browser, server: Server) -> None:
    visit(browser, server.url)
    browser.wait_for(".opblock-tag", "rerank")
    status = try_version(browser)
    urls = browser.fetched_urls()

    assert status.startswith("200")
    assert f"{server.url}/version" in urls
    assert [url for url in urls if not url.startswith((server.url, "data:"))] == []
    assert browser.console_messages() == []
    assert browser.all(".btn.authorize") == []
    assert not browser.wait_for_hidden("#loading").is_displayed()


def test_with_keys_the_page_asks_for_one_and_sends_it(browser: Browser, guarded: Server) -> None:
    visit(browser, guarded.url)
    browser.wait_for("#message", "This server needs a key.")
    browser.write_key("a-wrong-key")
    browser.wait_for("#message", "This key is not accepted.")
    browser.write_key(KEY)
    browser.wait_for(".opblock-tag", "rerank")

    assert not browser.wait_for_hidden("#key-form").is_displayed()
    assert try_version(browser).startswith("200")
    assert not [url for url in browser.fetched_urls() if KEY in url]


def test_another_key_can_be_entered_at_authorize(browser: Browser, guarded: Server) -> None:
    visit(browser, guarded.url)
    browser.wait("#key-form")
    browser.write_key(KEY)
    browser.wait(".btn.authorize").click()
    browser.wait_for(".auth-container button", "Logout").click()
    browser.wait(".auth-container input").send_keys("a-wrong-key")
    browser.wait(".auth-container button.authorize").click()
    browser.wait(".auth-container .btn-done").click()

    assert try_version(browser).startswith("401")
    browser.wait(".btn.authorize").click()
    browser.wait_for(".auth-container button", "Logout").click()
    browser.wait(".auth-container input").send_keys(KEY)
    browser.wait(".auth-container button.authorize").click()
    browser.wait(".auth-container .btn-done").click()
    browser.run("document.querySelector('[id$=version_get] .execute').click()")
    browser.wait_for(EXECUTED, "200")
