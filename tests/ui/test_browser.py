"""The web page in Chromium, with a real server and the built-in model."""

from __future__ import annotations

import base64
import csv
import io
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from support.browser import Browser, need
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

RESULT = ".list li"
RANKING = f"#ranking {RESULT}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = tmp_path_factory.mktemp("config") / "rankd.toml"
    config.write_text('[instructions]\nphysics = "Find a sentence about physics"\n')
    with serving("--config", str(config), "--threads", "1") as server:
        yield server


@pytest.fixture(scope="module")
def limited() -> Iterator[Server]:
    with serving("--max-documents", "50", "--max-tokens", "256", "--threads", "1") as server:
        yield server


@pytest.fixture(scope="module")
def uncached() -> Iterator[Server]:
    """A server that computes every ranking, which takes seconds if it is long."""
    with serving("--threads", "1", "--cache-mb", "0") as server:
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


def test_the_right_document_is_first_and_shows_its_place_in_the_input(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    first = browser.wait_for(RANKING, "The capital of China is Beijing.")

    assert first.text.split()[0] == "1"
    assert "▲1" in first.text
    assert "#2 in the input" in first.text
    assert "tokens with the prompt" in first.text
    assert len(browser.all(RANKING)) == 3
    assert float(first.find_element("css selector", "data").text) > 0.5
    assert "ms" in browser.wait("#ranking .summary").text
    served = browser.wait_for("#served", "builtin").text
    assert "up to 1,000 documents" in served
    assert "8,192 tokens each" in served


def test_a_screen_reader_hears_one_sentence_about_a_ranking(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)

    status = browser.run("return document.getElementById('status').textContent")
    assert status == "3 documents ranked, best 0.96"
    live = "[role=status], [role=alert], [aria-live], output"
    assert (
        browser.run(
            "return document.querySelectorAll(`#ranking :is(${arguments[0]})`).length", live
        )
        == 0
    )


def test_first_paint_and_first_ranking_are_fast(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    paint = browser.run("return performance.getEntriesByType('paint')[0].startTime")
    began = time.perf_counter()
    browser.press("Web search")
    browser.wait(RANKING)
    seconds = time.perf_counter() - began

    # For a person to read (-s): machines differ too much for a limit.
    print(f"\nfirst paint {paint:.0f} ms, first ranking {seconds * 1000:.0f} ms")  # noqa: T201
    assert browser.texts(f"{RANKING} .text")[0] == "The capital of China is Beijing."


def test_nothing_is_fetched_from_other_hosts_and_the_console_is_empty(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    for example in ("Web search", "Help desk", "中文搜索", "中文客服"):
        browser.press(example)
        browser.wait(RANKING)
    for tab in ("Compare", "Distribution", "Code"):
        browser.press(tab)
    urls = browser.fetched_urls()

    assert len(urls) > 10
    assert [url for url in urls if not url.startswith((server.url, "data:", "blob:"))] == []
    assert browser.console_messages() == []


@pytest.mark.parametrize(
    ("example", "best"),
    [
        ("Web search", "The capital of China is Beijing."),
        ("Help desk", "git revert undoes a commit"),
        ("中文搜索", "中国的首都是北京。"),
        ("中文客服", "申请退款"),
    ],
)
def test_an_example_runs_when_it_is_chosen_and_its_answer_is_first(
    browser: Browser, server: Server, example: str, best: str
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.press(example)
    browser.wait(RANKING)

    assert best in browser.texts(f"{RANKING} .text")[0]


def test_scores_of_a_repeated_request_are_marked_as_cached(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank("cached?", "one\ntwo")
    browser.wait(RANKING)
    browser.press("Rerank")

    browser.wait_for("#ranking .summary", "2 from the cache")
    assert len(browser.all("#ranking .cached")) == 2


def test_a_truncated_document_is_marked_with_the_numbers_of_the_page(
    browser: Browser, limited: Server
) -> None:
    browser.visit(f"{limited.url}/ui")
    browser.rank("long?", f"short\n{'long ' * 5000}")

    browser.wait_for(f"{RANKING} .cut", "truncated")
    assert len(browser.all("#ranking .cut")) == 1
    warning = browser.wait("#ranking .warning").text
    assert warning.startswith("#2 was cut from ")
    assert "," in warning
    browser.press("Show all of it")
    browser.wait_for(RANKING, "Show less")


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("", "one", "Query must not be empty."),
        ("q", "", "no documents"),
        ("q", "\n".join("d" * 51), "50"),
        ("q", '["one",]', "not valid JSON, line 1"),
        ("q", '["one", {}]', "Document #2 must not be an empty object."),
    ],
)
def test_an_error_is_shown_with_the_servers_message(
    browser: Browser, limited: Server, query: str, documents: str, message: str
) -> None:
    browser.visit(f"{limited.url}/ui")
    browser.rank(query, documents)

    assert message in browser.wait("#ranking .error").text


def test_a_script_in_a_document_is_shown_as_text(browser: Browser, server: Server) -> None:
    evil = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> ${1} {{x}}"
    browser.visit(f"{server.url}/ui")
    browser.rank(evil, evil)
    row = browser.wait(RANKING).text
    browser.press("Code")
    code = browser.wait("#code pre").text

    assert evil in row
    assert evil in code
    assert browser.run("return window.hacked") is None


def test_sentences_that_answer_are_highlighted_as_text(browser: Browser, server: Server) -> None:
    sentence = "😀 The capital of China is <b>Beijing</b>."
    browser.visit(f"{server.url}/ui")
    browser.wait("#spans option[value=sentences]").click()
    browser.rank(QUERY, f"Lions hunt at night. {sentence} Bread is baked.")
    browser.wait_for(f"{RANKING} mark", "Beijing")

    assert [mark.text for mark in browser.all(f"{RANKING} mark")] == [sentence]
    assert browser.all(f"{RANKING} b b") == []
    assert browser.wait(f"{RANKING} .text").text.startswith("Lions hunt at night. 😀 The")


def test_two_instructions_are_compared_side_by_side_without_the_cache(
    browser: Browser, uncached: Server, pictures: Path | None
) -> None:
    browser.visit(f"{uncached.url}/ui")
    browser.press("Help desk")
    browser.wait(RANKING)
    browser.press("Compare")
    browser.write("instruction-b", "Find texts about animals, plants and nature")
    browser.wait("#run-compare").click()
    browser.wait_for("#compare .difference", "2 of 5 ranks differ; the best document is the same.")

    left, right = browser.all("#compare section")
    assert len(left.find_elements("css selector", RESULT)) == 5
    assert "in the input" in left.text
    assert "in A" in right.text
    assert "Find texts about animals, plants and nature" in right.text
    assert left.rect["x"] + left.rect["width"] <= right.rect["x"]
    assert browser.all("#compare .cached") == []
    browser.size(1280, 1480)
    browser.screenshot(pictures, "compare")


def test_a_preset_of_the_server_can_be_chosen(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    option = browser.wait_for_hidden("#preset option[value=physics]")
    assert option.text == "physics: Find a sentence about physics"
    option.click()
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    browser.press("Code")

    assert '"preset": "physics"' in browser.wait("#code pre").text


def test_the_distribution_has_a_point_for_every_score(
    browser: Browser, uncached: Server, pictures: Path | None
) -> None:
    browser.visit(f"{uncached.url}/ui")
    browser.rank(QUERY, "\n".join(CITIES))
    browser.wait(RANKING)
    browser.press("Distribution")

    chart = browser.wait("#distribution svg")
    assert len(chart.find_elements("css selector", "circle")) == 15
    assert "of 15" in browser.wait("#distribution .facts").text
    browser.screenshot(pictures, "distribution")


def test_the_curl_snippet_gets_the_scores_of_the_page(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    shown = browser.texts(f"{RANKING} data")
    browser.press("Code")
    code = browser.run("return document.querySelector('#code pre').textContent")
    output = subprocess.run(["bash"], input=code, capture_output=True, text=True, check=True).stdout

    assert [f"{r['relevance_score']:.4f}" for r in json.loads(output)["results"]] == shown
    browser.press("Response")
    response = json.loads(browser.wait("#code pre").text)
    assert [f"{r['relevance_score']:.4f}" for r in response["results"]] == shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("texts.txt", "[one]\n{two}\n"),
        ("texts.csv", "\ufeffid,text\n1,[one]\n2,{two}\n"),
        ("texts.json", '["[one]", "{two}"]'),
        ("texts.jsonl", '{"text": "[one]"}\n{"text": "{two}"}\n'),
    ],
)
def test_a_file_is_read_in_the_browser_and_never_uploaded(
    browser: Browser, server: Server, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    browser.visit(f"{server.url}/ui")
    browser.wait_for("#served", "builtin")
    browser.wait_for_hidden("#file").send_keys(str(tmp_path / name))
    browser.wait_for_value("#documents", text.strip().removeprefix("\ufeff"))
    browser.wait_for("#count", "2 documents")
    browser.fetched_urls()
    browser.write("query", "one?")
    browser.press("Rerank")
    browser.wait(RANKING)

    assert sorted(browser.texts(f"{RANKING} .text")) == ["[one]", "{two}"]
    assert browser.fetched_urls() == [f"{server.url}/v1/rerank"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pdf", "a.pdf is not a .txt"),
        ("a.txt", "1,000,001 bytes; the server's limit is 1,000,000"),
    ],
)
def test_a_file_that_cannot_be_ranked_is_refused_by_name(
    browser: Browser, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).write_text("x" * 1_000_001, encoding="utf-8")
    with serving("--engine", "fake", "--max-body-bytes", "1000000") as small:
        browser.visit(f"{small.url}/ui")
        browser.wait_for("#served", "fake")
        browser.wait_for_hidden("#file").send_keys(str(tmp_path / name))

        browser.wait_for("#alert", message)


def test_pasted_paragraphs_are_noticed_and_read_as_such(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.write("documents", "one\nline\n\ntwo\nlines")
    browser.wait_for("#count", "4 documents, read as: One per line")
    browser.press("Read as 2 paragraphs instead")
    browser.wait_for("#count", "2 documents, read as: Separated by blank lines")
    browser.write("query", "two")
    browser.press("Rerank")
    browser.wait(RANKING)

    assert sorted(browser.texts(f"{RANKING} .text")) == ["one\nline", "two\nlines"]


@pytest.mark.parametrize("field", ["query", "documents"])
def test_keys_rank_without_the_mouse(browser: Browser, server: Server, field: str) -> None:
    browser.visit(f"{server.url}/ui")
    browser.write("query", QUERY)
    browser.write("documents", DOCUMENTS)
    keys = Keys.ENTER if field == "query" else Keys.CONTROL + Keys.ENTER
    browser.wait(f"#{field}").send_keys(keys)
    browser.wait(RANKING)
    browser.wait("#tab-ranking").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)

    browser.wait("#code pre")
    assert browser.run("return document.activeElement.id") == "tab-code"


def test_every_control_shows_its_focus(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    seen = set()
    for _ in range(20):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = browser.run(
            "const e = document.activeElement, style = getComputedStyle(e);"
            "return [e.id || e.textContent, style.outlineStyle + ' ' + style.outlineWidth]"
        )
        if name in seen or browser.run("return document.activeElement === document.body"):
            break
        assert outline == "solid 3px", name
        seen.add(name)

    fields = {"theme", "query", "preset", "instruction", "documents", "format", "open", "run"}
    assert seen >= {*fields, "spans", "Web search", "tab-ranking"}


LONG = "\n".join(f"{index} {'word ' * 1500}" for index in range(150))


def test_a_long_ranking_shows_seconds_and_results_so_far_and_can_be_stopped(
    browser: Browser, uncached: Server
) -> None:
    browser.visit(f"{uncached.url}/ui")
    browser.rank("long?", LONG)
    browser.wait_for("#ranking .progress", "Scored ")
    browser.wait("#ranking .partial li")
    seconds = browser.wait("#ranking .seconds").text
    assert seconds.endswith(" s")
    assert float(seconds.split()[0]) > 0
    browser.press("Stop")
    browser.wait_for("#ranking", "Stopped.")

    assert browser.wait("#run").text == "Rerank"
    assert browser.all(RANKING) == []
    deadline = time.monotonic() + 30
    while "rankd_waiting_tokens 0.0" not in httpx.get(f"{uncached.url}/metrics").text:
        assert time.monotonic() < deadline, "the server goes on with a ranking that was stopped"
        time.sleep(0.2)
    browser.rank(QUERY, DOCUMENTS)
    browser.wait_for(RANKING, "Beijing")


def test_a_new_request_takes_the_place_of_one_that_runs(browser: Browser, uncached: Server) -> None:
    browser.visit(f"{uncached.url}/ui")
    browser.rank("long?", LONG)
    browser.wait_for("#ranking .progress", "Scored ")
    browser.press("Web search")
    browser.wait_for(RANKING, "Beijing")
    assert len(browser.all(RANKING)) == 5
    browser.rank("long?", LONG)
    browser.wait_for("#ranking .progress", "Scored ")
    browser.write("documents", DOCUMENTS)
    browser.wait("#query").send_keys(Keys.ENTER)

    browser.wait_for(f"#ranking:not(:has(.progress)) {RESULT}", "Beijing")
    assert len(browser.all(RANKING)) == 3
    assert browser.wait("#run").text == "Rerank"


def test_numbers_in_objects_are_sent_as_they_are_written(browser: Browser, server: Server) -> None:
    documents = '[{"a": 12345678901234567890, "b": 1.0, "c": [1e2, 7]}]'
    browser.visit(f"{server.url}/ui")
    browser.rank("q", documents)
    browser.wait(RANKING)
    assert browser.wait(f"{RANKING} .text").text.splitlines()[:2] == [
        "a: 12345678901234567890",
        "b: 1.0",
    ]
    browser.press("Code")
    browser.press("requests")
    code = browser.wait("#code pre").text
    browser.press("curl")

    assert '{"a": 12345678901234567890, "b": 1.0, "c": [1e2, 7]}' in code
    assert "12345678901234567890" in browser.wait("#code pre").text


def test_a_reload_keeps_the_inputs(browser: Browser, server: Server) -> None:
    browser.visit(f"{server.url}/ui")
    browser.wait_for_hidden("#preset option[value=physics]").click()
    for field in ("query", "documents", "instruction", "instruction-b"):
        browser.write(field, f"{field}\nof mine" if field == "documents" else f"{field} of mine")
    browser.wait_for("#count", "2 documents")
    browser.driver.refresh()
    browser.wait_for("#served", "builtin")

    browser.wait_for_value("#documents", "documents\nof mine")
    browser.wait_for_value("#instruction-b", "instruction-b of mine")
    browser.wait_for_value("#preset", "physics")


def test_a_link_gives_the_inputs_to_another_visitor_and_never_the_key(
    browser: Browser, guarded: Server
) -> None:
    browser.visit(f"{guarded.url}/ui")
    browser.write_key(KEY)
    browser.wait_for("#key-state", "accepted")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    browser.run(
        "navigator.clipboard.writeText = async (text) => { document.body.dataset.copied = text }"
    )
    browser.press("Copy link")
    browser.wait_for("#ranking .actions", "Copied")
    link = browser.run("return document.body.dataset.copied")
    state = link.partition("#s=")[2]
    shared = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)).decode()
    browser.visit(f"{guarded.url}/ui")
    browser.run("location.href = arguments[0]", link)

    assert json.loads(shared).keys() == {"query", "documents", "format"}
    assert KEY not in shared
    browser.wait_for_value("#query", QUERY)
    browser.wait_for_value("#documents", DOCUMENTS)
    assert "#" not in browser.driver.current_url
    assert KEY[:5] not in "".join(browser.fetched_urls())


def test_the_csv_file_has_every_result(browser: Browser, server: Server, tmp_path: Path) -> None:
    browser.visit(f"{server.url}/ui")
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    texts = [f'number {index}, "quoted"' for index in range(250)]
    browser.rank(QUERY, json.dumps(texts))
    browser.wait_for("#ranking", "and 50 more")
    shown = browser.texts(f"{RANKING} data")
    browser.press("Download CSV")
    file = tmp_path / "ranking.csv"
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")))

    assert [int(row["rank"]) for row in rows] == list(range(1, 251))
    assert all(row["text"] == texts[int(row["index"])] for row in rows)
    assert [f"{float(row['relevance_score']):.4f}" for row in rows[:200]] == shown


def test_chinese_visitors_get_chinese_labels_and_dark_mode_is_readable(
    browser: Browser, uncached: Server, pictures: Path | None
) -> None:
    browser.speak("zh-CN")
    browser.size(1280, 950, dark=True)
    browser.visit(f"{uncached.url}/ui")
    browser.press("中文搜索")
    first = browser.wait(RANKING)

    assert "中国的首都是北京。" in first.text
    assert "输入中 #3" in first.text
    assert browser.wait("#run").text == "重排序"
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") < 60
    assert _brightness(browser, "getComputedStyle(document.querySelector('.text')).color") > 180
    browser.screenshot(pictures, "dark")


@pytest.mark.parametrize("language", ["en-US", "de-DE"])
def test_other_visitors_get_english_labels(browser: Browser, server: Server, language: str) -> None:
    browser.speak(language)
    browser.visit(f"{server.url}/ui")

    assert browser.wait("#run").text == "Rerank"
    assert browser.run("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_axe_finds_no_serious_fault(
    browser: Browser, server: Server, guarded: Server, axe: Path, look: str
) -> None:
    width, height = (390, 844) if look == "phone" else (1280, 900)
    browser.size(width, height, phone=look == "phone", dark=look == "dark")
    browser.visit(f"{guarded.url}/ui")
    browser.wait("#key-form")
    findings = {"key": browser.findings(axe)}
    browser.write_key("wrong")
    browser.wait_for("#key-state", "not accepted")
    findings["wrong key"] = browser.findings(axe)
    browser.visit(f"{server.url}/ui")
    browser.wait_for("#served", "builtin")
    findings["empty"] = browser.findings(axe)
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    for tab in ("Ranking", "Distribution", "Code", "Compare"):
        browser.press(tab)
        if tab == "Compare":
            browser.wait("#run-compare").click()
            browser.wait("#compare section")
        findings[tab] = browser.findings(axe)
    browser.rank("", "one")
    browser.wait("#ranking .error")
    findings["error"] = browser.findings(axe)

    assert {look: found for look, found in findings.items() if found} == {}


def test_the_theme_button_switches_to_dark_and_a_reload_keeps_it(
    browser: Browser, server: Server
) -> None:
    browser.visit(f"{server.url}/ui")
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") > 200
    browser.wait("#theme").click()
    browser.driver.refresh()
    browser.wait("#run")

    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") < 60
    browser.wait("#theme").click()
    assert _brightness(browser, "getComputedStyle(document.body).backgroundColor") > 200


def _brightness(browser: Browser, colour: str) -> float:
    """Brightness, 0 to 255, of the colour that a script returns."""
    numbers = browser.run(f"return {colour}").strip("rgba()").split(",")[:3]
    return sum(map(float, numbers)) / 3


@pytest.mark.parametrize("width", [390, 360])
def test_on_a_phone_every_tab_fits_the_window(
    browser: Browser, uncached: Server, pictures: Path | None, width: int
) -> None:
    browser.size(width, 844, phone=True)
    browser.visit(f"{uncached.url}/ui")
    browser.wait_for("#served", "builtin")
    browser.press("Web search")
    browser.wait(RANKING)
    top = browser.run("return document.getElementById('tabs').getBoundingClientRect().top")
    assert 0 <= top < 100, "the results scroll into view"
    layouts = {"Ranking": _layout(browser)}
    if width == 390:
        browser.size(width, 1980, phone=True)
        browser.screenshot(pictures, "phone")
        browser.size(width, 844, phone=True)
    for tab, content in (
        ("Distribution", "#distribution svg"),
        ("Code", "#code pre"),
        ("Compare", "#compare section"),
    ):
        browser.press(tab)
        if tab == "Compare":
            browser.run("document.getElementById('run-compare').click()")
        browser.wait(content)
        layouts[tab] = _layout(browser)

    assert layouts == dict.fromkeys(layouts, (width, width, []))


def _layout(browser: Browser) -> tuple[int, int, list[str]]:
    """Width of the page, width of the window, and elements over its edges."""
    width, window = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    return width, window, browser.overflowing()


def test_on_a_desktop_the_page_fits_the_window(
    browser: Browser, uncached: Server, pictures: Path | None
) -> None:
    browser.visit(f"{uncached.url}/ui")
    browser.wait_for("#served", "builtin")
    browser.press("Web search")
    browser.wait(RANKING)

    assert _layout(browser) == (1280, 1280, [])
    browser.screenshot(pictures, "light")


def test_no_key_a_wrong_key_and_an_accepted_key_are_told_apart(
    browser: Browser, guarded: Server
) -> None:
    browser.visit(f"{guarded.url}/ui")
    browser.wait_for("#key-state", "This server needs a key.")
    assert browser.all(".error") == []
    assert not browser.wait_for_hidden("#alert").is_displayed()
    browser.rank(QUERY, DOCUMENTS)
    browser.wait_for("#ranking .error", "enter it above")
    browser.write_key("a-wrong-key")
    browser.wait_for("#key-state", "This key is not accepted.")
    browser.press("Rerank")
    browser.wait_for("#ranking .error", "401")
    browser.write_key(KEY)
    browser.wait_for("#key-state", "The key is accepted.")
    browser.press("Rerank")
    browser.wait(RANKING)
    browser.press("Forget it")

    browser.wait_for("#key-state", "This server needs a key.")
    assert browser.run("return sessionStorage.getItem('rankd.key')") is None


def test_with_a_key_the_page_ranks_and_the_key_is_not_in_page_or_storage(
    browser: Browser, guarded: Server
) -> None:
    browser.visit(f"{guarded.url}/ui")
    browser.write_key(KEY)
    browser.wait_for("#served", "fake engine")
    browser.rank(QUERY, DOCUMENTS)
    browser.wait(RANKING)
    browser.press("Code")
    for language in ("curl", "requests", "rankd (Python)", "Cohere", "LangChain", "TypeScript"):
        browser.press(language)
        code = browser.wait("#code pre").text
        assert "RANKD_API_KEY" in code
        assert KEY not in code

    assert KEY not in browser.driver.page_source
    assert browser.run("return [document.cookie, localStorage.length]") == ["", 0]
    assert KEY not in browser.run("return sessionStorage.getItem('rankd.fields')")
    assert not [url for url in browser.fetched_urls() if KEY in url]


def test_the_page_says_when_the_server_does_not_answer(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    with proxied(server.url, tmp_path) as url:
        browser.visit(f"{url}/tools/rankd/ui")
        browser.wait_for("#served", "builtin")
    browser.rank(QUERY, DOCUMENTS)

    browser.wait_for("#ranking .error", "The server does not answer. Is it running?")


def test_the_page_says_when_an_answer_ends_too_early(browser: Browser) -> None:
    with serving("--threads", "1", "--cache-mb", "0", "--drain-seconds", "0") as server:
        browser.visit(f"{server.url}/ui")
        browser.rank("long?", LONG)
        browser.wait_for("#ranking .progress", "Scored ")
        server.process.kill()

        browser.wait("#ranking .error")
    assert browser.wait("#run").text == "Rerank"


def test_the_page_works_behind_a_proxy_with_a_prefix(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    with proxied(server.url, tmp_path) as url:
        browser.visit(f"{url}/tools/rankd/ui")
        browser.rank(QUERY, DOCUMENTS)
        browser.wait_for(RANKING, "Beijing")
        browser.press("Code")

        assert f"{url}/tools/rankd/v1/rerank" in browser.wait("#code pre").text
        assert browser.console_messages() == []
        assert httpx.get(f"{url}/tools/rankd/ui").headers["location"].endswith("ui/")
