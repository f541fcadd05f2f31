"""Runs the commands of examples/README.md against a live server and checks what they print."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.keys import Keys
from test_clients import ADDRESS, ENVIRONMENTS, QUIET, ROOT, TIMEOUT_SECONDS

from support.browser import browsing
from support.servers import free_port, serving

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^```bash run=(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PRINTED = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

# The test environment that has the packages of each environment that the page creates.
OWN = {"langchain": "cohere5", "llamaindex": "cohere6", "openai": "cohere6", "gradio": "gradio"}

REQUESTS = "examples/data/requests.jsonl"

Paste = Callable[..., str]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("builtin", "--batch-dir", str(tmp_path_factory.mktemp("jobs"))) as server:
        yield server.url


@pytest.fixture
def paste(url: str, tmp_path: Path) -> Paste:
    """Runs commands of the page in a shell; returns their output."""

    def program(match: re.Match[str]) -> str:
        own, name = match.groups()
        if own:
            return str(ENVIRONMENTS / OWN[own] / "bin" / name)
        return sys.executable + " -m rankd" * (name == "rankd")

    def paste(commands: str, folder: Path = ROOT) -> str:
        script = re.sub(r"^\.venv(?:-(\w+))?/bin/(\w+)", program, commands, flags=re.MULTILINE)
        script = script.replace(" /tmp/", f" {tmp_path}/").replace(ADDRESS, url)
        process = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=TIMEOUT_SECONDS,
            env=os.environ | QUIET | {"RERANK_URL": url, "PYTHONPATH": _path()},
            check=False,
        )
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-3000:]
        return process.stdout

    return paste


def _path() -> str:
    # It may be how this Python finds rankd.
    return os.environ.get("PYTHONPATH", "")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_page_has_commands_for_every_program() -> None:
    files = {file.stem for file in EXAMPLES.glob("*.py")}

    assert set(COMMANDS) == files | {"typescript", "gradio"}
    for name in files:
        assert f"[{name}.py]({name}.py)" in PAGE
        assert f"examples/{name}.py" in COMMANDS[name]


def test_the_packages_that_the_page_installs_are_those_that_are_tested() -> None:
    installed = {
        own: packages.split()
        for own, packages in re.findall(r"^\.venv-(\w+)/bin/pip install (.+)$", PAGE, re.MULTILINE)
    }

    assert set(installed) == set(OWN)
    for own, packages in installed.items():
        file = ROOT / "tests" / "clients" / "env" / f"{OWN[own]}.txt"
        pinned = re.findall(r"^([\w-]+)==", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(packages) <= set(pinned)
    requirements = (EXAMPLES / "gradio" / "requirements.txt").read_text(encoding="utf-8")
    assert requirements.split() == installed["gradio"]


def test_judged_pairs_and_requests_use_passages_of_the_handbook() -> None:
    handbook = {row["text"] for row in rows(EXAMPLES / "data" / "corpus.jsonl")}
    judged = rows(EXAMPLES / "data" / "judged.jsonl")
    requests = rows(EXAMPLES / "data" / "requests.jsonl")

    assert {pair["document"] for pair in judged} <= handbook
    assert {document for request in requests for document in request["documents"]} <= handbook
    assert f"and {len(judged)}\njudged pairs" in PAGE


@pytest.mark.clients
def test_langchain_ranks_the_passage_that_answers_first(paste: Paste) -> None:
    printed = paste(COMMANDS["rag_langchain"])

    assert printed.startswith(PRINTED[0])
    passages = re.findall(r"^\[([a-z-]+)\] \w", printed, re.MULTILINE)
    assert passages == ["return", "battery-cold", "battery-flight"]
    assert "Question: Can I give the bike back if I do not like it?" in printed


@pytest.mark.clients
def test_llama_index_ranks_a_chinese_passage_first_for_a_chinese_question(paste: Paste) -> None:
    printed = paste(COMMANDS["rag_llamaindex"])

    assert "rankd\n  0.517 zh-brake\n" in printed
    assert "[zh-brake] 刹车有异响" in printed
    assert "Query: 刹车响怎么办?" in printed


@pytest.mark.clients
def test_the_client_and_a_batch_job_rank_a_file_the_same(paste: Paste, tmp_path: Path) -> None:
    paste(COMMANDS["bulk_client"] + COMMANDS["bulk_openai"])

    by_client, by_job = rows(tmp_path / "by-client.jsonl"), rows(tmp_path / "by-job.jsonl")
    assert by_client == by_job
    assert [line["id"] for line in by_client] == [f"q{number}" for number in range(1, 11)]
    assert by_client[0]["ranked"][0]["index"] == 1  # Second in BM25's order.


@pytest.mark.clients
@pytest.mark.parametrize("name", ["bulk_client", "bulk_openai"])
def test_a_refused_request_is_one_line_and_leaves_the_others_alone(
    name: str, paste: Paste, tmp_path: Path
) -> None:
    requests = (EXAMPLES / "data" / "requests.jsonl").read_text(encoding="utf-8")
    bad = json.dumps({"id": "bad", "query": "", "documents": ["text"]})
    (tmp_path / "requests.jsonl").write_text(f"{bad}\n{requests}", encoding="utf-8")

    paste(COMMANDS[name].replace(REQUESTS, "/tmp/requests.jsonl"))

    [target] = tmp_path.glob("by-*.jsonl")
    answers = {line["id"]: line for line in rows(target)}
    assert "query must not be empty" in answers.pop("bad")["error"]
    assert len(answers) == 10
    assert all(line["ranked"] for line in answers.values())


@pytest.mark.clients
def test_a_stream_prints_every_passage_and_then_the_best(paste: Paste) -> None:
    *scored, last = paste(COMMANDS["stream"]).splitlines()

    assert len(scored) == len(rows(EXAMPLES / "data" / "corpus.jsonl"))
    assert last.startswith("best: zh-brake, ")
    assert "0.517 zh-brake" in scored


@pytest.mark.clients
def test_a_calibrated_threshold_leaves_out_irrelevant_passages(paste: Paste) -> None:
    printed = paste(COMMANDS["threshold"])

    assert PRINTED[1] in printed


@pytest.mark.clients
def test_typescript_prints_an_answer_or_an_error_for_each_search(
    paste: Paste, url: str, tmp_path: Path
) -> None:
    # Copied, so that npm leaves no files in the working tree.
    for package in "clients/typescript", "examples/typescript":
        leftovers = shutil.ignore_patterns("node_modules", "dist")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leftovers)
    program = tmp_path / "examples" / "typescript" / "search.ts"
    program.write_text(program.read_text(encoding="utf-8").replace(ADDRESS, url), encoding="utf-8")

    english, chinese, empty = paste(COMMANDS["typescript"], folder=tmp_path).splitlines()[-3:]

    assert english.endswith("Charging the battery takes four hours from empty.")
    assert "刹车有异响" in chinese
    assert empty.endswith("refused: query must not be empty")


@contextmanager
def gradio_page(url: str) -> Iterator[str]:
    """The address of the page, which asks the server at `url`."""
    address = f"http://127.0.0.1:{free_port()}"
    words = COMMANDS["gradio"].split()
    assert words[0] == ".venv-gradio/bin/python"
    process = subprocess.Popen(
        [str(ENVIRONMENTS / "gradio" / "bin" / "python"), *words[1:]],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env=os.environ
        | QUIET
        | {"RERANK_URL": url, "GRADIO_SERVER_PORT": address.rpartition(":")[2]},
    )
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                httpx.get(address)
                break
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.clients
def test_the_gradio_page_ranks_and_shows_the_servers_errors(url: str) -> None:
    with gradio_page(url) as address, browsing() as browser:
        browser.size(1280, 900)
        browser.driver.get(address)
        browser.press("Rerank")
        first = browser.wait_for("[role=row]", "Beijing")
        assert first.text.split()[:2] == ["1", "0.9612"]

        browser.wait("[data-testid=textbox]").send_keys(Keys.CONTROL + "a", Keys.BACKSPACE)
        browser.press("Rerank")
        browser.wait_for("[data-testid=toast-body]", "query must not be empty")
