"""The command `rankd eval`: figures, reports, comparisons, servers and interruptions."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rankd.evaluation.statistics import kendall_tau
from support.servers import Server, command, get, serving
from support.typed import run

DOCUMENTS = {
    "beijing": "The capital of China is Beijing.",
    "china": "China is a large country, and its capital has many people; China exports tea.",
    "gravity": "Gravity is a force that attracts two bodies towards each other.",
    "lions": "Lions hunt at night and sleep in the day.",
    "bread": "Bread is made of flour, water and salt.",
}
QUERIES = {
    "q1": ("What is the capital of China?", "beijing"),
    "q2": ("Explain gravity", "gravity"),
    "q3": ("when do lions hunt", "lions"),
}
KEY = "secret-of-the-server"

# The right document is always last.
RUN = {
    query: [*(name for name in DOCUMENTS if name != right), right]
    for query, (_, right) in QUERIES.items()
}


def jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The built-in model, behind a key."""
    with serving("--api-key", KEY) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path)


def make(parent: Path) -> Path:
    """A data set: three queries, five documents, and a first stage with the right one last."""
    made = parent / "animals"
    (made / "qrels").mkdir(parents=True)
    jsonl(made / "corpus.jsonl", [{"_id": n, "text": text} for n, text in DOCUMENTS.items()])
    jsonl(made / "queries.jsonl", [{"_id": q, "text": text} for q, (text, _) in QUERIES.items()])
    judged = [f"{query}\t{right}\t1" for query, (_, right) in QUERIES.items()]
    (made / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    rows = [
        f"{query} Q0 {name} {rank} {-rank} first"
        for query, names in RUN.items()
        for rank, name in enumerate(names, 1)
    ]
    (made / "run.trec").write_text("\n".join(rows))
    return made


def evaluate(folder: Path, *arguments: str, stage: str = "run") -> dict[str, Any]:
    """Run the command; returns the JSON report and the output."""
    first = ["--run", str(folder / "run.trec")] if stage == "run" else ["--bm25"]
    out = folder.parent / "out"
    ended = run("eval", str(folder), *first, "--out", str(out), *arguments)
    assert ended.returncode == 0, ended.stderr
    report = json.loads((out / "report.json").read_text())
    assert isinstance(report, dict)
    return report | {"output": ended.stdout}


@pytest.fixture(scope="module")
def reranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The data set, and the report with the built-in model."""
    folder = make(tmp_path_factory.mktemp("reranked"))
    return folder, evaluate(folder, "--measures", "MRR@10", "Recall@1", "nDCG@10")


Reranked = tuple[Path, dict[str, Any]]


def test_the_report_has_the_figures_before_and_after_reranking(reranked: Reranked) -> None:
    _, report = reranked

    [system] = report["systems"]
    before = {"MRR@10": 1 / 5, "Recall@1": 0, "nDCG@10": 1 / math.log2(6)}
    after = {"MRR@10": 1, "Recall@1": 1, "nDCG@10": 1}
    assert report["first_stage"] == pytest.approx(before)
    assert system["measures"] == after
    assert system["against_first_stage"]["MRR@10"]["mean"] == pytest.approx(0.8)
    assert system["against_first_stage"]["MRR@10"]["better"] == 3
    assert report["queries"]["q2"] == {"first_stage": pytest.approx(before), "A": after}
    assert report["data"] | {"queries": 3, "pairs": 15, "first_stage": "run.trec"} == report["data"]
    assert "A: builtin (native" in report["output"]
    assert "+0.800" in report["output"]


def test_the_markdown_report_has_the_same_figures(reranked: Reranked) -> None:
    shown = (reranked[0].parent / "out/report.md").read_text(encoding="utf-8")

    assert "| MRR@10 | 0.200 | 1.000 | +0.800 |" in shown
    assert "model builtin" in shown
    assert "max_tokens 8192" in shown


def test_the_new_order_is_written_as_a_trec_run(reranked: Reranked) -> None:
    folder, _ = reranked
    file = folder.parent / "out/reranked-A.trec"
    rows = [line.split() for line in file.read_text().splitlines()]

    assert [row[2] for row in rows if row[3] == "1"] == ["beijing", "gravity", "lions"]
    scores = [float(row[4]) for row in rows if row[0] == "q1"]
    assert scores == sorted(scores, reverse=True)
    again = folder.parent / "again"
    ended = run("eval", str(folder), "--run", str(file), "--engine", "fake", "--out", str(again))
    assert ended.returncode == 0, ended.stderr
    assert json.loads((again / "report.json").read_text())["first_stage"]["MRR@10"] == 1


def test_bm25_finds_the_first_stage_s_candidates(folder: Path) -> None:
    report = evaluate(folder, "--engine", "fake", stage="bm25")

    # All documents contain "the" or "is"; one each contains gravity and lions.
    assert report["first_stage"]["Recall@10"] == 1
    assert report["data"]["pairs"] == 7
    assert report["data"]["first_stage"].startswith("BM25, k1 1.2")


@pytest.mark.slow
def test_an_empty_document_is_scored(folder: Path, server: Server) -> None:
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace(DOCUMENTS["bread"], ""))

    local = evaluate(folder)
    remote = evaluate(folder, "--url", server.url, "--api-key", KEY)

    assert local["data"]["pairs"] == 15
    assert remote["queries"] == local["queries"]


def test_depth_limits_the_candidates_and_queries_the_queries(folder: Path) -> None:
    report = evaluate(folder, "--engine", "fake", "--depth", "4", "--queries", "2")

    assert report["data"]["pairs"] == 8
    assert list(report["queries"]) == ["q1", "q2"]
    assert report["systems"][0]["measures"]["Recall@4"] == 0


def test_candidates_with_the_query_s_id_can_be_dropped(folder: Path) -> None:
    with (folder / "run.trec").open("a") as file:
        file.write("\nq1 Q0 q1 0 9 first\n")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "q1", "text": "What is the capital of China?"}\n')

    flags = ("--engine", "fake", "--depth", "5")
    kept, dropped = evaluate(folder, *flags), evaluate(folder, *flags, "--ignore-identical-ids")

    assert kept["first_stage"]["Recall@5"] == pytest.approx(2 / 3)
    assert dropped["first_stage"]["Recall@5"] == 1


def test_two_models_are_compared_query_by_query(folder: Path, random_checkpoint: Path) -> None:
    report = evaluate(folder, "--against", str(random_checkpoint))

    one, other = report["systems"]
    assert one["about"]["model"] == "builtin"
    assert other["about"]["model"] == random_checkpoint.name
    compared = report["comparison"]["measures"]["nDCG@10"]
    before, after = (system["measures"]["nDCG@10"] for system in (one, other))
    assert compared["mean"] == pytest.approx(after - before)
    lost = [q["B"]["nDCG@10"] < q["A"]["nDCG@10"] for q in report["queries"].values()]
    assert compared["worse"] == sum(lost)
    assert 0 < compared["p"] <= 1
    taus = {query: values["kendall_tau"] for query, values in report["queries"].items()}
    assert report["comparison"]["kendall_tau"] == pytest.approx(sum(taus.values()) / 3)
    logits = [
        {row["query"]: row["logits"] for row in map(json.loads, file.read_text().splitlines()[1:])}
        for file in scores(folder)
    ]
    assert taus["q1"] == pytest.approx(kendall_tau(logits[0]["q1"], logits[1]["q1"]))
    assert "Kendall's tau of A and B" in report["output"]


def test_two_instructions_are_compared(folder: Path) -> None:
    flags = ("--instruction", "Find the capital", "--against-instruction", "Find an animal")
    report = evaluate(folder, *flags, "--engine", "fake")

    instructions = [system["about"]["instruction"] for system in report["systems"]]
    assert instructions == ["Find the capital", "Find an animal"]
    assert "A: instruction 'Find the capital'" in report["output"]


def scores(folder: Path) -> list[Path]:
    return sorted((folder.parent / "out").glob("scores-*.jsonl"))


def test_scored_queries_are_not_scored_again(folder: Path) -> None:
    with serving("--engine", "fake", "--cache-mb", "0") as server:
        first = evaluate(folder, "--url", server.url)
        before = documents_scored(server.url)
        second = evaluate(folder, "--url", server.url, "--measures", "P@1")
        after = documents_scored(server.url)

    assert first["systems"][0]["reused_queries"] == 0
    assert second["systems"][0]["reused_queries"] == 3
    # Two known documents are scored twice at each start.
    assert (before, after) == (15 + 4, 15 + 4 + 4)
    assert len(scores(folder)) == 1


def documents_scored(url: str) -> int:
    [line] = [
        line
        for line in get(f"{url}/metrics").text.splitlines()
        if line.startswith("rankd_documents_total ")
    ]
    return int(float(line.split()[1]))


@pytest.mark.parametrize(
    "changed",
    [["--depth", "3"], ["--instruction", "Find animals"], ["--max-tokens", "256"]],
)
def test_scores_with_other_settings_are_written_to_another_file(
    folder: Path, changed: list[str]
) -> None:
    evaluate(folder, "--engine", "fake")

    report = evaluate(folder, "--engine", "fake", *changed)

    assert report["systems"][0]["reused_queries"] == 0
    assert len(scores(folder)) == 2


def test_a_changed_document_is_scored_again(folder: Path) -> None:
    evaluate(folder, "--engine", "fake")
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Lions", "Tigers"))

    assert evaluate(folder, "--engine", "fake")["systems"][0]["reused_queries"] == 0


def test_half_a_line_is_scored_again_and_a_damaged_one_is_an_error(folder: Path) -> None:
    first = evaluate(folder, "--engine", "fake")
    [file] = scores(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])

    second = evaluate(folder, "--engine", "fake")
    assert second["systems"][0]["reused_queries"] == 2
    assert second["queries"] == first["queries"]
    assert evaluate(folder, "--engine", "fake")["systems"][0]["reused_queries"] == 3

    file.write_bytes(whole.replace(b'"query":"q2"', b'"query":"q9"'))
    error = refused(folder, "--engine", "fake", "--run", str(folder / "run.trec"))
    assert f"{file}:3 is damaged" in error


def refused(folder: Path, *arguments: str) -> str:
    """Run the command, which must fail; returns its error message."""
    ended = run("eval", str(folder), "--out", str(folder.parent / "out"), *arguments)
    assert ended.returncode in (1, 2), ended.stdout
    assert ended.stderr.startswith("rankd: ")
    assert "Traceback" not in ended.stderr
    return ended.stderr


def many(folder: Path, queries: int, documents: int) -> list[str]:
    """Make a larger data set; returns the arguments that evaluate it."""
    words = (folder / "corpus.jsonl").read_text().split()
    (folder / "qrels/test.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(queries)))
    jsonl(
        folder / "queries.jsonl",
        [{"_id": f"q{n}", "text": f"what about {words[n % len(words)]}"} for n in range(queries)],
    )
    jsonl(
        folder / "corpus.jsonl",
        [
            {"_id": f"d{n}", "text": " ".join(words[n % 7 :] * 3) + f" {n}"}
            for n in range(documents)
        ],
    )
    found = {f"q{n}": {f"d{m}": -m for m in range(documents)} for n in range(queries)}
    (folder / "run.json").write_text(json.dumps(found))
    return ["eval", str(folder), "--run", str(folder / "run.json")]


@pytest.mark.slow
def test_a_killed_run_continues_where_it_was(folder: Path, tmp_path: Path) -> None:
    arguments = [*many(folder, queries=30, documents=10), "--concurrency", "2"]
    out = tmp_path / "killed"
    process = subprocess.Popen([*command(*arguments), "--out", str(out)])
    for _ in range(2):
        kept = wait_for_lines(out, more_than=5)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
        process = subprocess.Popen([*command(*arguments), "--out", str(out)])
    assert process.wait(timeout=120) == 0

    undisturbed = run(*arguments, "--out", str(tmp_path / "whole"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    rows = [json.loads(line) for line in journal(out).read_text().splitlines()[1:]]
    assert sorted(row["query"] for row in rows) == sorted(f"q{n}" for n in range(30))
    assert journal(out).read_bytes().startswith(kept)
    report, expected = (
        json.loads((place / "report.json").read_text()) for place in (out, tmp_path / "whole")
    )
    assert 10 <= report["systems"][0]["reused_queries"] < 30
    assert report["queries"] == expected["queries"]


def journal(out: Path) -> Path:
    [file] = out.glob("scores-*.jsonl")
    return file


def wait_for_lines(out: Path, *, more_than: int) -> bytes:
    """Wait until there are more than `more_than` new lines; returns all complete lines."""
    deadline = time.monotonic() + 90
    begun = None
    while time.monotonic() < deadline:
        files = list(out.glob("scores-*.jsonl"))
        content = files[0].read_bytes() if files else b""
        lines = content.count(b"\n")
        if begun is None and files and lines:
            begun = lines
        if begun is not None and lines > begun + more_than:
            return content[: content.rfind(b"\n") + 1]
        time.sleep(0.01)
    raise AssertionError("nothing was scored")


@pytest.mark.slow
def test_two_processes_cannot_write_one_file(folder: Path, tmp_path: Path) -> None:
    arguments = [*many(folder, queries=40, documents=15), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL) as process:
        wait_for_lines(tmp_path / "out", more_than=1)
        second = run(*arguments)
        process.kill()

    assert second.returncode == 2
    assert "another rankd eval is writing" in second.stderr


@pytest.mark.slow
def test_a_server_gives_the_figures_of_the_local_engine(folder: Path, server: Server) -> None:
    local = evaluate(folder)

    remote = evaluate(folder, "--url", server.url, "--api-key", KEY)

    assert remote["queries"] == local["queries"]
    about = remote["systems"][0]["about"]
    assert about["model"] == "builtin"
    assert about["scores"] == "logits"


@pytest.mark.slow
def test_a_local_model_is_compared_with_a_server(folder: Path, server: Server) -> None:
    report = evaluate(folder, "--against-url", server.url, "--api-key", KEY)

    one, other = report["systems"]
    assert one["about"]["engine"].startswith("native")
    assert other["about"]["url"] == server.url
    assert report["comparison"]["kendall_tau"] == pytest.approx(1)
    assert report["comparison"]["measures"]["nDCG@10"]["p"] == 1
    assert "secret" not in json.dumps(report)


def test_a_changed_model_of_a_server_is_an_error(folder: Path, server: Server) -> None:
    there = ("--url", server.url, "--api-key", KEY)
    evaluate(folder, *there)
    [file] = scores(folder)
    head, *rows = file.read_text().splitlines()
    right, wrong = json.loads(head)["probe"]

    # A small difference is noise; a reversed order is another model.
    write_probe(file, [right + 0.01, wrong - 0.01], rows)
    assert evaluate(folder, *there)["systems"][0]["reused_queries"] == 3
    write_probe(file, [wrong, right], rows)
    error = refused(folder, *there, "--run", str(folder / "run.trec"))

    assert "does not score as it did" in error


def write_probe(file: Path, probe: list[float], rows: list[str]) -> None:
    head = json.loads(file.read_text().splitlines()[0]) | {"probe": probe}
    file.write_text("\n".join([json.dumps(head), *rows, ""]))


class _Cohere(BaseHTTPRequestHandler):
    """Cohere's second version: probabilities, no model, no usage, no field it does not know."""

    fails_after = 1_000_000

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).fails_after -= 1
        if unknown := set(body) - {"model", "query", "documents", "top_n", "max_tokens_per_doc"}:
            self._say(400, {"message": f"unknown field {sorted(unknown)}"})
        elif self.fails_after < 0:
            self._say(500, {"message": "out of order"})
        else:
            words = set(body["query"].lower().strip("?").split())
            overlaps = [
                len(words & set(text.lower().strip(".").split())) / len(words)
                for text in body["documents"]
            ]
            results = [{"index": n, "relevance_score": one} for n, one in enumerate(overlaps)]
            self._say(200, {"id": "x", "results": results, "meta": {"warnings": ["cut"]}})

    def _say(self, status: int, content: dict[str, Any]) -> None:
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def cohere(fails_after: int = 1_000_000) -> Iterator[str]:
    _Cohere.fails_after = fails_after
    with ThreadingHTTPServer(("127.0.0.1", 0), _Cohere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_with_only_coheres_fields_can_be_used(folder: Path) -> None:
    with cohere() as url:
        report = evaluate(folder, "--url", url, "--model", "rerank-v4")

    [system] = report["systems"]
    assert system["measures"]["MRR@10"] > report["first_stage"]["MRR@10"]
    assert system["about"]["model"] == "rerank-v4"
    assert system["about"]["scores"] == "probabilities"
    assert (system["queries_with_warnings"], system["first_warning"]) == (3, "cut")


def test_scores_from_before_a_failure_of_the_server_are_kept(folder: Path) -> None:
    first = ("--run", str(folder / "run.trec"), "--concurrency", "1")
    with cohere(fails_after=4) as url:  # Two calls with known pairs, two queries.
        error = refused(folder, "--url", url, *first)
        assert "out of order" in error
        assert "2 queries are kept: the same command goes on from there" in error
        _Cohere.fails_after = 1_000
        report = evaluate(folder, "--url", url)

    assert report["systems"][0]["reused_queries"] == 2


def test_wrong_arguments_are_errors_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    first = ("--run", str(folder / "run.trec"))

    assert "give one of --run FILE, --bm25 and --shadow-lines FILE" in refused(folder)
    assert "give one of --run FILE, --bm25 and" in refused(folder, "--bm25", *first)
    assert "--depth must be at least 1, not 0" in refused(folder, "--bm25", "--depth", "0")
    assert "'nDGC@10' is not a measure" in refused(folder, "--bm25", "--measures", "nDGC@10")
    assert "is not a folder" in refused(tmp_path / "nowhere", "--bm25")
    for flag in ("--against", "--against-instruction", "--against-url"):
        assert f"{flag} must not be empty" in refused(folder, *first, flag, "")
    assert "cannot read" in refused(folder, "--bm25", "--split", "dev")
    assert "instruction" in refused(
        folder, "--bm25", "--engine", "fake", "--instruction", "very " * 2_000
    )
    assert "both sides are the same" in refused(
        folder, *first, "--against", "builtin", "--engine", "fake"
    )
    assert "--url: base_url must look like" in refused(folder, *first, "--url", "localhost:1")
    assert "cannot connect to" in refused(folder, *first, "--url", "http://127.0.0.1:9")
    (folder / "other.trec").write_text("q9 Q0 beijing 1 1.0 x\n")
    assert "candidates for none of the judged queries" in refused(
        folder, "--run", str(folder / "other.trec")
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    ended = run("eval", str(folder), "--bm25", "--out", str(blocked))
    assert "cannot make" in ended.stderr
