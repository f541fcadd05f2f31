"""The web page in Chromium, with a real server and the built-in model."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from browser import Browser, browsing, need

from support.servers import Server, free_port, serving

pytestmark = pytest.mark.ui

KEY = "a-key-of-the-browser-test"
DOCUMENTS = "Gravity is a force.\nThe capital of China is Beijing.\nBread is baked."
QUERY = "What is the capital of China?"
CITIES = (
    "Beijing is the capital of China.",
    "The Chinese government has its seat in Beijing.",
    "Nanjing was the capital of China until 1949.",
    "Shanghai is the largest city of China.",
    "China is a country in East Asia.",
    "The capital of Japan is Tokyo.",
    "The capital of France is Paris.",
    "Taipei lies in the north of Taiwan.",
    "Chongqing lies on the Yangtze.",
    "A capital letter begins a sentence.",
    "Capital is what a bank lends.",
    "Porcelain is also called china.",
    "Gravity is a force.",
    "Bread is baked.",
    "The Great Wall is near Beijing.",
)

RESULT = ".rk-list li"
RANKING = f"#rk-ranking {RESULT}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = tmp_path_factory.mktemp("config") / "rankd.toml"
    config.write_text('[instructions]\nphysics = "Find a sentence about physics"\n')
    flags = ("--max-documents", "50", "--max-tokens", "256", "--threads", "1")
    with serving("--config", str(config), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with serving("--engine", "fake", "--api-key", KEY) as server:
        yield server


@contextmanager
def proxied(upstream: str, folder: Path) -> Iterator[str]:
    """nginx in front of a server; it takes a prefix off every path."""
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
        events {{}}
        http {{
          access_log off;
          client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
          fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          server {{
            listen 127.0.0.1:{port};
            location /tools/rankd/ {{
              proxy_pass {upstream}/;
              proxy_set_header Host $host;
              proxy_set_header X-Forwarded-Host $host;
              proxy_set_header X-Forwarded-Proto https;
            }}
          }}
        }}
        """,
        encoding="utf-8",
    )
    command = [need("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browsing() as window:
        yield window


@pytest.fixture
def browser(window: Browser) -> Browser:
    window.size(1280, 860)
    window.fetched_urls()
    window.console_messages()
    return window


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Path | None:
    folder: Path | None = request.config.getoption("--screenshots")
    return folder


def test_the_right_document_is_first_and_shows_its_index_in_the_input(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    first = browser.wait_for(RANKING, "The capital of China is Beijing.")

    assert first.text.split()[0] == "1"
    assert "▲1" in first.text
    assert "#2 in the input" in first.text
    assert "tokens" in first.text
    assert len(browser.all(RANKING)) == 3
    assert float(first.find_element("css selector", "output").text) > 0.5
    assert "ms" in browser.wait("#rk-ranking .rk-summary").text
    browser.wait_for("#rk-served", "builtin")


def test_nothing_is_fetched_from_other_hosts_and_the_console_is_empty(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    urls = browser.fetched_urls()

    assert len(urls) > 10
    assert [url for url in urls if not url.startswith((server.url, "data:", "blob:"))] == []
    assert browser.console_messages() == []


def test_scores_of_a_repeated_request_are_marked_as_cached(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank("cached?", "one\ntwo")
    browser.wait(RANKING)
    browser.press("Rerank")

    browser.wait_for("#rk-ranking .rk-summary", "2 from the cache")
    assert len(browser.all("#rk-ranking .rk-cached")) == 2


def test_a_truncated_document_is_marked(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank("long?", f"short\n{'long ' * 500}")

    browser.wait_for(f"{RANKING} .rk-cut", "truncated")
    assert len(browser.all("#rk-ranking .rk-cut")) == 1
    assert "document 1 was cut" in browser.wait("#rk-ranking .rk-warning").text


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("", "one", "Query must not be empty."),
        ("q", "", "no documents"),
        ("q", "\n".join("d" * 51), "50"),
        ("q", '["one",', "not valid JSON"),
    ],
)
def test_an_error_is_shown_with_the_servers_message(
    browser: Browser, server: Server, query: str, documents: str, message: str
) -> None:
    browser.visit(f"{server.url}/ui")
    if documents.startswith("["):
        documents += "]]"
    browser.rank(query, documents)

    error = browser.wait("#rk-ranking .rk-error").text
    assert message in error
    assert "Traceback" not in error


def test_a_script_in_a_document_is_shown_as_text(browser: Browser, server: Server) -> None:
    evil = (
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
        " ${window.hacked = 1} {{value}} @children"
    )
    browser.visit(f"{server.url}/ui")
    browser.rank(evil, evil)
    row = browser.wait(RANKING)
    browser.press("Code")
    browser.wait("#rk-code pre")

    assert evil in row.text or evil in browser.run("return arguments[0].textContent", row)
    assert all(evil.split(">")[0] in text for text in browser.texts("#rk-code pre"))
    assert browser.run("return window.hacked") is None


def test_two_instructions_are_compared_side_by_side(
    browser: Browser, server: Server, pictures: Path | None
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.choose_example("Web search")
    browser.press("Compare")
    browser.write("rk-instruction-b", "Find a sentence about physics")
    browser.run("document.getElementById('rk-compare-run').click()")
    browser.wait_for("#rk-compare .rk-difference", "of 5 ranks")

    left, right = browser.all("#rk-compare section")
    assert len(left.find_elements("css selector", RESULT)) == 5
    assert "in the input" in left.text
    assert "in A" in right.text
    assert "Find a sentence about physics" in right.text
    assert left.rect["x"] + left.rect["width"] <= right.rect["x"]
    browser.screenshot(pictures, "compare")


def test_a_preset_of_the_server_can_be_chosen(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.wait_for("#rk-served", "builtin")
    browser.wait("#rk-preset input").click()
    option = browser.wait_for("[role=option]", "physics: Find a sentence about physics")
    option.click()
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    browser.press("Code")

    assert '"preset": "physics"' in browser.wait("#rk-code pre").text


def test_the_distribution_has_a_point_for_every_score(
    browser: Browser, server: Server, pictures: Path | None
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, "\n".join(CITIES))
    browser.wait(RANKING)
    browser.press("Distribution")

    chart = browser.wait("#rk-distribution svg")
    assert len(chart.find_elements("css selector", "circle")) == 15
    assert "of 15" in browser.wait("#rk-distribution .rk-facts").text
    browser.screenshot(pictures, "distribution")


def test_the_curl_snippet_gets_the_scores_of_the_page(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    shown = browser.texts(f"{RANKING} output")
    browser.press("Code")
    code = browser.run("return arguments[0].textContent", browser.wait("#rk-code pre"))
    output = subprocess.run(["bash"], input=code, capture_output=True, text=True, check=True).stdout

    assert [f"{r['relevance_score']:.4f}" for r in json.loads(output)["results"]] == shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("texts.txt", "[one]\n{two}\n"),
        ("texts.csv", "id,text\n1,[one]\n2,{two}\n"),
        ("texts.json", '["[one]", "{two}"]'),
        ("texts.jsonl", '{"text": "[one]"}\n{"text": "{two}"}\n'),
    ],
)
def test_a_file_is_read_in_the_browser_and_never_uploaded(
    browser: Browser, server: Server, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    browser.visit(f"{server.url}/ui")
    browser.press("Open a file …")
    file = browser.wait_for_hidden("#rk-file")
    file.send_keys(str(tmp_path / name))
    browser.wait_for_value("#rk-documents textarea", text.strip())
    browser.write("rk-query", "one?")
    browser.press("Rerank")
    browser.wait(RANKING)

    assert sorted(browser.texts(f"{RANKING} .rk-text")) == ["[one]", "{two}"]
    assert not [url for url in browser.fetched_urls() if "upload" in url]


def test_chinese_texts_are_ranked_and_dark_mode_is_readable(
    browser: Browser, server: Server, pictures: Path | None
) -> None:
    browser.size(1280, 860, dark=True)
    browser.visit(f"{server.url}/ui")
    browser.choose_example("中文搜索")
    browser.press("Rerank")
    first = browser.wait(RANKING)

    assert "中国的首都是北京。" in first.text
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") < 60
    assert _brightness(browser, "getComputedStyle(document.querySelector('.rk-text')).color") > 180
    browser.screenshot(pictures, "dark")


def test_the_theme_button_switches_to_dark_and_a_reload_keeps_it(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") > 200
    browser.wait("#rk-theme").click()
    browser.driver.refresh()
    browser.wait("#rk-run")

    browser.wait("body.dark")
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") < 60


def _brightness(browser: Browser, colour: str) -> float:
    """Brightness, 0 to 255, of the colour that a script returns."""
    numbers = browser.run(f"return {colour}").strip("rgba()").split(",")[:3]
    return sum(map(float, numbers)) / 3


@pytest.mark.parametrize("width", [390, 360])
def test_on_a_phone_every_tab_fits_the_window(
    browser: Browser, server: Server, pictures: Path | None, width: int
) -> None:
    browser.size(width, 844, phone=True)
    browser.visit(f"{server.url}/ui")
    browser.choose_example("Web search")
    browser.press("Rerank")
    browser.wait(RANKING)
    layouts = {"Ranking": _layout(browser)}
    if width == 390:
        browser.run("document.querySelector('#rk-run').scrollIntoView()")
        browser.screenshot(pictures, "phone", top=False)
    for tab, content in (
        ("Distribution", "#rk-distribution svg"),
        ("Code", "#rk-code pre"),
        ("Compare", "#rk-compare section"),
    ):
        browser.press(tab)
        if tab == "Compare":
            browser.run("document.getElementById('rk-compare-run').click()")
        browser.wait(content)
        layouts[tab] = _layout(browser)

    assert layouts == dict.fromkeys(layouts, (width, width, []))


def _layout(browser: Browser) -> tuple[int, int, list[str]]:
    """Width of the page, width of the window, and elements over its edges."""
    width, window = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    return width, window, browser.overflowing()


def test_on_a_desktop_the_page_fits_the_window(
    browser: Browser, server: Server, pictures: Path | None
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.choose_example("Web search")
    browser.press("Rerank")
    browser.wait(RANKING)

    assert _layout(browser) == (1280, 1280, [])
    browser.screenshot(pictures, "light")


def test_with_keys_the_page_loads_and_asks_for_one(browser: Browser, guarded: Server) -> None:
    browser.visit(f"{guarded.url}/ui")
    browser.wait_for("#rk-alert", "needs a key")
    browser.write_key("a-wrong-key")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait_for("#rk-alert", "needs a key")

    assert browser.all(RANKING) == []


def test_with_a_key_the_page_ranks_and_the_key_is_not_in_page_or_storage(
    browser: Browser, guarded: Server
) -> None:
    browser.visit(f"{guarded.url}/ui")
    browser.write_key(KEY)
    browser.wait_for("#rk-served", "fake engine")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    browser.press("Code")
    codes = browser.texts("#rk-code pre")

    assert len(codes) == 3
    assert all("RANKD_API_KEY" in code for code in codes)
    assert KEY not in browser.driver.page_source
    assert browser.run("return [document.cookie, localStorage.length]") == ["", 0]
    assert not [url for url in browser.fetched_urls() if KEY in url]


def test_the_page_says_when_the_server_does_not_answer(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    with proxied(server.url, tmp_path) as url:
        browser.visit(f"{url}/tools/rankd/ui")
        browser.wait_for("#rk-served", "builtin")
    browser.rank(QUERY, DOCUMENTS)

    browser.wait_for("#rk-alert", "does not answer")


def test_the_page_works_behind_a_proxy_with_a_prefix(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    with proxied(server.url, tmp_path) as url:
        browser.visit(f"{url}/tools/rankd/ui")
        browser.rank(QUERY, DOCUMENTS)
        browser.wait_for(RANKING, "Beijing")
        browser.press("Code")

        assert f"{url}/tools/rankd/v1/rerank" in browser.wait("#rk-code pre").text
        assert browser.console_messages() == []
        assert httpx.get(f"{url}/tools/rankd/ui").headers["location"].endswith("ui/")
