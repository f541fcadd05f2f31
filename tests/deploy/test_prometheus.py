"""The dashboard and the rules on a real Prometheus that scrapes a live server under load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.servers import Server, family, serving

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))

# What a rankd without vLLM or Ray has nothing of.
OPTIONAL = ["vllm:", "rankd_ray_replica_tokens"]

LOAD_SECONDS = float(os.environ.get("DASHBOARD_SECONDS", "26"))
KEYS = ("prometheus", "acme", "umbrella", "greedy")

# Cuts texts that no cache has seen, as long as they are wanted.
WORDS = (ROOT / "LICENSE").read_text().split()

Json = dict[str, Any]


def needs(program: str) -> None:
    """Skip where a program is missing; CI has them all."""
    if shutil.which(program) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing")
        pytest.skip(f"needs {program} (Debian: apt install prometheus)")


def promtool(*arguments: str, stdin: str | None = None) -> None:
    needs("promtool")
    ended = subprocess.run(
        ["promtool", *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Lint is a sentence on stderr and no failure of its own.
    assert ended.stderr == "", ended.stderr


@dataclass
class Watched:
    """A server under load, and the Prometheus that watched it.

    Attributes:
        began: when the load did, in seconds since 1970.
        statuses: what its requests were answered with.
    """

    server: Server
    url: str
    headers: dict[str, str]
    began: float
    statuses: list[int]

    def ask(self, path: str, **query: str) -> Json:
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30).json()
        assert reply["status"] == "success", reply
        found: Json = reply["data"]
        return found

    def value(self, expr: str) -> float:
        result = self.ask("query", query=expr)["result"]
        return sum(float(one["value"][1]) for one in result)

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run bench/dashboard.py on what was seen since the load began."""
        last = str(time.time() - self.began)
        command = [sys.executable, "bench/dashboard.py", "--prometheus", self.url, "--rate", "8"]
        return subprocess.run(
            [*command, "--last", last, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    needs("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    keys = folder / "keys"
    keys.write_text("".join(f"{name} = key-of-{name}\n" for name in KEYS))
    settings = folder / "rankd.toml"
    settings.write_text(
        f'api_keys_file = "{keys}"\nbatch_dir = "{folder}/batches"\naccess_log = false\n'
        "max_documents = 100\nmax_waiting_requests = 10\nkey_concurrency = 4\n"
        "batch_tokens = 2048\n"
        '[instructions]\ncode = "Given a question about code, find the function"\n'
        '[[shadow]]\nname = "code"\nshare = 0.2\npreset = "code"\n'
        '[[ab]]\nname = "code"\nshare = 0.2\npreset = "code"\n'
    )
    with (
        serving("--config", str(settings)) as server,
        prometheus(folder, server.url, "key-of-prometheus") as url,
    ):
        began = time.time()
        statuses = asyncio.run(load(server))
        time.sleep(2)  # Two more scrapes, two more evaluations.
        yield Watched(server, url, {"authorization": "Bearer key-of-prometheus"}, began, statuses)


@contextmanager
def prometheus(folder: Path, target: str, key: str) -> Iterator[str]:
    """Debian's, by the example of deploy/prometheus, but every second and with a key."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (folder / "scrape.key").write_text(key)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(file) for file in RULES]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target.removeprefix("http://")]}]
    job["authorization"] = {"credentials_file": str(folder / "scrape.key")}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stderr=log,
            stdout=log,
        )
        try:
            until_ready(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "Prometheus ended"
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("Prometheus was not ready in time")


class Load:
    """Callers of all kinds, each in a loop of its own."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._place = 0
        self.statuses: list[int] = []

    def text(self, words: int) -> str:
        """One that was not there before."""
        self._place += 1
        start = self._place * 7 % (len(WORDS) - 10)
        text = " ".join(WORDS[start:] * (1 + words // 10))
        return f"{self._place} {' '.join(text.split()[:words])}"

    def texts(self, count: int, words: int = 40) -> list[str]:
        return [self.text(words) for _ in range(count)]

    async def post(self, path: str, body: Any, key: str = "acme", timeout: float = 60) -> None:
        headers = {"authorization": f"Bearer key-of-{key}"}
        try:
            reply = await self._http.post(path, json=body, headers=headers, timeout=timeout)
        except httpx.ReadTimeout:
            return  # A client that leaves.
        self.statuses.append(reply.status_code)

    async def ordinary(self) -> None:
        """Every dialect, with what is cut and what is read in chunks."""
        await self.post("/v1/rerank", {"query": self.text(8), "documents": self.texts(20)})
        some = {"query": self.text(8), "documents": self.texts(6)}
        for path in ("/cohere/v2/rerank", "/jina/v1/rerank", "/voyage/v1/rerank"):
            await self.post(path, some | {"query": self.text(5)})
        await self.post("/rerank", {"query": self.text(5), "texts": self.texts(4)})
        passages = [{"text": text} for text in self.texts(4)]
        await self.post("/v1/ranking", {"query": {"text": self.text(5)}, "passages": passages})
        await self.post("/v1/score", {"text_1": self.text(5), "text_2": self.texts(3)})
        long = {"query": self.text(8), "documents": self.texts(4, 500), "max_tokens_per_doc": 128}
        await self.post("/v1/rerank", long)
        await self.post("/v1/rerank", long | {"truncation": "chunk"})
        await asyncio.sleep(0.1)

    async def repeating(self) -> None:
        """Equal documents in one request, equal requests in flight, and asked again."""
        documents = self.texts(12)
        body = {"query": self.text(8), "documents": documents + documents[:4]}
        await asyncio.gather(*(self.post("/v1/rerank", body, "umbrella") for _ in range(2)))
        for _ in range(3):
            await self.post("/v1/rerank", body, "umbrella")
        await asyncio.sleep(0.2)

    async def particular(self) -> None:
        """Presets and texts as instruction, thresholds, and fields that nobody knows."""
        body = {"query": self.text(8), "documents": self.texts(5), "score_threshold": 0.9}
        await self.post("/v1/rerank", body | {"preset": "code"})
        await self.post("/v1/rerank", body | {"instruction": "Find what contradicts the query"})
        await self.post("/v1/rerank", body | {"temperature": 1})
        await asyncio.sleep(0.3)

    async def mistaken(self) -> None:
        await self.post("/v1/rerank", {"query": "no documents"})
        await self.post("/v1/rerank", {"query": "q", "documents": self.texts(101, 2)})
        await self.post("/v1/rerank", {"query": "q", "documents": ["d"]}, "nobody")
        await self.post("/v1/nothing", {})
        late = {"query": self.text(9), "documents": self.texts(60, 150)}
        await self.post("/v1/rerank", late | {"timeout_ms": 60}, "umbrella")
        await self.post("/v1/rerank", late, "umbrella", timeout=0.15)
        await asyncio.sleep(0.7)

    async def greedy(self) -> None:
        """More at a time than one key may, and than may wait in all."""
        bodies = [{"query": self.text(8), "documents": self.texts(8)} for _ in range(15)]
        keys = ("greedy", "greedy", "umbrella")
        await asyncio.gather(
            *(self.post("/v1/rerank", body, keys[n % 3]) for n, body in enumerate(bodies))
        )
        await asyncio.sleep(1)

    async def batch_jobs(self) -> None:
        rows = [
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/rerank",
                "body": {"query": self.text(6), "documents": self.texts(number % 4)},
            }
            for number in range(40)
        ]
        headers = {"authorization": "Bearer key-of-acme"}
        file = await self._http.post(
            "/v1/files",
            files={"file": ("rows.jsonl", "\n".join(map(json.dumps, rows)).encode())},
            data={"purpose": "batch"},
            headers=headers,
        )
        body = {"input_file_id": file.json()["id"], "endpoint": "/v1/rerank"}
        body["completion_window"] = "24h"
        job = await self._http.post("/v1/batches", json=body, headers=headers)
        assert job.status_code == 200, job.text
        await asyncio.sleep(4)


async def load(server: Server) -> list[int]:
    """Varied requests for some seconds, and one engine that is killed; returns the statuses."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        callers = Load(http)
        ends = time.monotonic() + LOAD_SECONDS

        async def again(one: Any) -> None:
            while time.monotonic() < ends:
                await one()

        async def kill() -> None:
            await asyncio.sleep(LOAD_SECONDS * 0.6)
            [_, worker, *_] = family(server.process.pid)
            os.kill(worker, signal.SIGKILL)

        kinds = (
            *(callers.ordinary, callers.repeating, callers.particular),
            *(callers.mistaken, callers.greedy, callers.batch_jobs),
        )
        await asyncio.gather(kill(), *map(again, kinds))
    return callers.statuses


def test_the_load_was_what_a_dashboard_should_show(watched: Watched) -> None:
    assert {200, 400, 401, 404, 413, 429, 504} <= set(watched.statuses)
    assert 500 not in watched.statuses
    assert watched.value("rankd_engine_restarts_total") == 1
    assert watched.value('rankd_refused_total{reason="key_concurrency"}') > 0
    assert watched.value('rankd_refused_total{reason="waiting_requests"}') > 0
    for counter in ("cache_hits", "coalesced", "deduplicated", "truncated_documents"):
        assert watched.value(f"rankd_{counter}_total") > 0, counter
    answered = watched.value('rankd_rerank_requests_total{status="200"}')
    assert answered == watched.value('rankd_rerank_duration_seconds_count{status="200"}')
    # Of what clients saw, all; a few more were answered to clients that had left.
    assert answered >= watched.statuses.count(200) > 30


def test_every_panel_of_the_dashboard_shows_something(watched: Watched) -> None:
    optional = [flag for name in OPTIONAL for flag in ("--optional", name)]

    ended = watched.bench(*optional)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) > 50
    empty = [line for line in lines if not line.endswith(" series")]
    assert all(line.endswith(tuple(f"{one} may be" for one in OPTIONAL)) for line in empty)


def test_an_empty_panel_is_told_of(watched: Watched) -> None:
    ended = watched.bench()

    assert ended.returncode == 1
    assert "Pairs in vLLM / running: EMPTY" in ended.stdout


def test_the_first_row_is_drawn_from_what_was_scraped(watched: Watched, tmp_path: Path) -> None:
    # make dashboard keeps it.
    file = Path(os.environ.get("DASHBOARD_PNG", tmp_path / "dashboard.png"))

    watched.bench("--picture", str(file), "--optional", "")

    content = file.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    assert width > 1500
    assert height > 600
    assert len(content) > 50_000  # Not six empty frames.


def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    written = [rule for file in RULES for rule in in_file(file)]
    assert len(rules) == len(written) > 20


def test_every_recorded_series_is_there(watched: Watched) -> None:
    for rule in (rule for file in RULES for rule in in_file(file) if "record" in rule):
        found = watched.ask("query", query=rule["record"])["result"]
        assert found, f"{rule['record']} is empty"


def test_every_metric_that_a_rule_asks_for_is_there(watched: Watched) -> None:
    """A misspelt one is no error: its alert never fires."""
    known = set(watched.ask("label/__name__/values"))
    for rule in (rule for file in RULES for rule in in_file(file)):
        asked = set(re.findall(r"(?:rankd|job\w*:rankd)[\w:]+", rule["expr"]))
        assert not asked - known, rule


def test_nothing_is_wrong_with_a_server_that_answers(watched: Watched) -> None:
    firing = [
        one["labels"]["alertname"]
        for one in watched.ask("alerts")["alerts"]
        if one["state"] == "firing"
    ]

    assert firing == []


def test_metrics_under_load_are_as_promtool_wants_them(watched: Watched) -> None:
    page = httpx.get(f"{watched.server.url}/metrics", headers=watched.headers, timeout=30).text

    promtool("check", "metrics", stdin=page)
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(samples) < 1500  # What one scrape of a busy server costs.


def test_the_files_are_as_promtool_wants_them() -> None:
    promtool("check", "rules", *map(str, RULES))
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_every_alert_fires_where_it_should_and_not_elsewhere() -> None:
    tests = PROMETHEUS / "tests/alerts.yml"

    promtool("test", "rules", str(tests))

    proven = {
        one["alertname"]
        for test in yaml.safe_load(tests.read_text())["tests"]
        for one in test["alert_rule_test"]
        if one.get("exp_alerts")
    }
    assert proven == {rule["alert"] for file in RULES for rule in in_file(file) if "alert" in rule}


def in_file(file: Path) -> list[Json]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
