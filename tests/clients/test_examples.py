"""The programs of examples/ do what their page says, with its commands, against a live server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_clients import ADDRESS, ENVIRONMENTS, QUIET, ROOT, SECONDS

from support.servers import serving

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^```bash run=(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PRINTED = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

# Where the packages are that the page installs into environments of their own.
OWN = {"langchain": "cohere5", "llamaindex": "cohere6", "openai": "cohere6"}

REQUESTS = "examples/data/requests.jsonl"

Paste = Callable[..., str]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("builtin", "--batch-dir", str(tmp_path_factory.mktemp("jobs"))) as server:
        yield server.url


@pytest.fixture
def paste(url: str, tmp_path: Path) -> Paste:
    """Runs commands of the page as a shell would; returns what they printed."""

    def program(found: re.Match[str]) -> str:
        own, name = found.groups()
        if own:
            return str(ENVIRONMENTS / OWN[own] / "bin" / name)
        return sys.executable + " -m rankd" * (name == "rankd")

    def paste(commands: str, where: Path = ROOT) -> str:
        here = re.sub(r"^\.venv(?:-(\w+))?/bin/(\w+)", program, commands, flags=re.MULTILINE)
        here = here.replace(" /tmp/", f" {tmp_path}/").replace(ADDRESS, url)
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here],
            capture_output=True,
            text=True,
            cwd=where,
            timeout=SECONDS,
            env=os.environ | QUIET | {"RERANK_URL": url, "PYTHONPATH": _path()},
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
        return ended.stdout

    return paste


def _path() -> str:
    # rankd's own Python may be told by it where rankd is.
    return os.environ.get("PYTHONPATH", "")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_page_has_commands_for_every_program() -> None:
    programs = {file.stem for file in EXAMPLES.glob("*.py")} | {"typescript"}

    assert set(COMMANDS) == programs
    for name in programs - {"typescript"}:
        assert f"[{name}.py]({name}.py)" in PAGE
        assert f"examples/{name}.py" in COMMANDS[name]


def test_the_packages_it_names_are_those_that_are_tested() -> None:
    installed = {
        own: packages.split()
        for own, packages in re.findall(r"^\.venv-(\w+)/bin/pip install (.+)$", PAGE, re.MULTILINE)
    }

    assert set(installed) == set(OWN)
    for own, packages in installed.items():
        file = ROOT / "tests" / "clients" / "env" / f"{OWN[own]}.txt"
        pinned = re.findall(r"^([\w-]+)==", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(packages) <= set(pinned)


def test_judged_pairs_and_requests_are_of_the_handbook() -> None:
    handbook = {row["text"] for row in rows(EXAMPLES / "data" / "corpus.jsonl")}
    judged = rows(EXAMPLES / "data" / "judged.jsonl")
    requests = rows(EXAMPLES / "data" / "requests.jsonl")

    assert {pair["document"] for pair in judged} <= handbook
    assert {document for one in requests for document in one["documents"]} <= handbook
    assert f"and {len(judged)}\njudged pairs" in PAGE


@pytest.mark.clients
def test_langchain_gets_the_passage_that_answers_in_front_of_bm25_s(paste: Paste) -> None:
    printed = paste(COMMANDS["rag_langchain"])

    assert printed.startswith(PRINTED[0])
    passages = re.findall(r"^\[([a-z-]+)\] \w", printed, re.MULTILINE)
    assert passages == ["battery-charge", "battery-storage", "battery-cold"]
    assert "Question: How long until the battery is full?" in printed


@pytest.mark.clients
def test_llama_index_gets_a_chinese_answer_to_a_chinese_question(paste: Paste) -> None:
    printed = paste(COMMANDS["rag_llamaindex"])

    assert "rankd\n  0.965 zh-brake\n" in printed
    assert "[zh-brake] 刹车有异响" in printed
    assert "Query: 刹车响怎么办?" in printed


@pytest.mark.clients
def test_a_file_is_ranked_the_same_by_the_client_and_by_a_job(paste: Paste, tmp_path: Path) -> None:
    paste(COMMANDS["bulk_client"] + COMMANDS["bulk_openai"])

    by_client, by_job = rows(tmp_path / "by-client.jsonl"), rows(tmp_path / "by-job.jsonl")
    assert by_client == by_job
    assert [one["id"] for one in by_client] == [f"q{number}" for number in range(1, 11)]
    assert by_client[0]["ranked"][0]["index"] == 1  # BM25's second.


@pytest.mark.clients
@pytest.mark.parametrize("name", ["bulk_client", "bulk_openai"])
def test_a_request_that_is_refused_is_a_line_and_harms_no_other(
    name: str, paste: Paste, tmp_path: Path
) -> None:
    requests = (EXAMPLES / "data" / "requests.jsonl").read_text(encoding="utf-8")
    bad = json.dumps({"id": "bad", "query": "", "documents": ["text"]})
    (tmp_path / "requests.jsonl").write_text(f"{bad}\n{requests}", encoding="utf-8")

    paste(COMMANDS[name].replace(REQUESTS, "/tmp/requests.jsonl"))

    [target] = tmp_path.glob("by-*.jsonl")
    answers = {one["id"]: one for one in rows(target)}
    assert "query must not be empty" in answers.pop("bad")["error"]
    assert len(answers) == 10
    assert all(one["ranked"] for one in answers.values())


@pytest.mark.clients
def test_a_stream_tells_of_every_passage_and_then_of_the_best(paste: Paste) -> None:
    *told, last = paste(COMMANDS["stream"]).splitlines()

    assert len(told) == len(rows(EXAMPLES / "data" / "corpus.jsonl"))
    assert last.startswith("best: zh-brake, ")
    assert "0.965 zh-brake" in told


@pytest.mark.clients
def test_a_measured_threshold_leaves_out_what_does_not_answer(paste: Paste) -> None:
    printed = paste(COMMANDS["threshold"])

    assert PRINTED[1] in printed


@pytest.mark.clients
def test_typescript_gets_an_answer_or_an_error_for_each_search(
    paste: Paste, url: str, tmp_path: Path
) -> None:
    # What npm leaves behind belongs in no working tree.
    for package in "clients/typescript", "examples/typescript":
        leftovers = shutil.ignore_patterns("node_modules", "dist")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leftovers)
    program = tmp_path / "examples" / "typescript" / "search.ts"
    program.write_text(program.read_text(encoding="utf-8").replace(ADDRESS, url), encoding="utf-8")

    english, chinese, empty = paste(COMMANDS["typescript"], where=tmp_path).splitlines()[-3:]

    assert english.endswith("Charging the battery takes four hours from empty.")
    assert "刹车有异响" in chinese
    assert empty.endswith("refused: query must not be empty")
