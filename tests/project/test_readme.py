"""README's commands work as pasted, and show what they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Server, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOST = "http://127.0.0.1:8000"


def blocks(language: str, text: str) -> list[str]:
    """The README's code blocks of a language that contain a text."""
    all_blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [block for block in all_blocks if text in block]


def paste(block: str) -> str:
    """Run a block in a shell with this Python's rankd; returns its standard output."""
    # One substitution, because this Python may itself be in a .venv.
    code = re.sub(
        r"\.venv/bin/(rankd|python)",
        lambda match: sys.executable + " -m rankd" * (match[1] == "rankd"),
        block,
    )
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_the_curl_example_ranks_beijing_first(server: Server) -> None:
    [block] = blocks("bash", "/v1/rerank -d")

    answer = json.loads(paste(block.replace(HOST, server.url)))

    first, second = answer["results"]
    assert first["document"]["text"] == "The capital of China is Beijing."
    assert first["relevance_score"] > 0.5
    assert second["relevance_score"] < 0.5


def test_the_response_that_it_shows_is_that_of_the_server(server: Server) -> None:
    [shown] = blocks("json", '"results"')
    [block] = blocks("bash", "/v1/rerank -d")

    answer = json.loads(paste(block.replace(HOST, server.url)))

    assert f'"prompt_tokens":{answer["usage"]["prompt_tokens"]}' in shown
    scores = [float(score) for score in re.findall(r'"relevance_score":([\d.]+)', shown)]
    assert scores == pytest.approx([r["relevance_score"] for r in answer["results"]], rel=1e-3)
    assert answer["results"]
    for result in answer["results"]:
        assert f'"index":{result["index"]},"relevance_score":' in shown
    assert all(f'"{key}":' in shown for key in answer)


def test_the_curl_example_of_tei_gets_a_response_of_tei(server: Server) -> None:
    [block] = blocks("bash", '/rerank -d \'{"query"')
    [shown] = blocks("json", '[{"index"')

    answer = json.loads(paste(block.replace(HOST, server.url)))

    assert [rank["index"] for rank in answer] == [1, 0]
    assert [set(rank) for rank in answer] == [{"index", "score"}] * 2
    assert re.findall(r'"index":(\d)', shown) == ["1", "0"]


def test_the_python_example_ranks_the_right_document_first(server: Server) -> None:
    [block] = blocks("python", "from rankd.client import Client")

    printed = subprocess.run(
        [sys.executable, "-c", block.replace(HOST, server.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    assert "To undo a commit" in printed


@pytest.mark.slow
def test_the_offline_commands_work() -> None:
    [rerank] = blocks("bash", "rankd rerank")
    [check] = blocks("bash", "rankd check")

    best = json.loads(paste(rerank).splitlines()[0])

    assert best["text"] == "Paris is the capital of France."
    assert "This set-up gives right scores." in paste(check)


@pytest.mark.slow
def test_the_evaluation_example_works_on_its_data_sets(tmp_path: Path) -> None:
    [block] = blocks("bash", "rankd eval")

    printed = paste(block.replace("/tmp/rankd-sets", str(tmp_path)))

    assert re.search(r"^nDCG@10 .*0\.\d{3}", printed, re.MULTILINE)
    assert "[calibration." in printed
    assert (tmp_path / "scores.png").exists()
    assert (tmp_path / "out/report.md").exists()


def test_every_make_target_in_it_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
