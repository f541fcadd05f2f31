"""Every client of docs/clients.md, as the published package, against a live server.

`make test-clients` sets up the environments. Each driver and each block of the pages runs as a
process in its client's environment. No client code is patched or subclassed; two clients without a
URL argument get the URL by an attribute. The results are printed as a table at the end, and
written to `.venv-clients/report.md`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from support.servers import serving

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
PAGES = [
    (ROOT / "docs" / page).read_text(encoding="utf-8")
    for page in ("clients.md", "recipes.md", "zh/clients.md")
]
ADDRESS = "http://127.0.0.1:8000"
ENVIRONMENTS = ROOT / os.environ.get("CLIENTS_VENV", ".venv-clients")

KEY = "sesame"
# Two clients at a time: half of a client's time is its import, which does not load the server.
CONCURRENCY = 2
TIMEOUT_SECONDS = 240

# The drivers of each environment; some drivers run in several, to test several versions.
PLAN = {
    "cohere5": [
        "litellm_proxy",
        "litellm_sdk",
        "litellm_deepinfra",
        "cohere_sdk",
        "voyage_sdk",
        "dify_sdk",
        "langchain_partners",
    ],
    "cohere6": [
        "llama_index_lib",
        "cohere_sdk",
        "openai_sdk",
        "openai_batches",
        "infinity_sdk",
        "langchain_community_lib",
        "agno_lib",
    ],
    "cohere7": [
        "litellm_sdk",
        "litellm_deepinfra",
        "haystack_rankers",
        "lightrag_lib",
        "cohere_sdk",
        "voyage_sdk",
        "openai_sdk",
        "openai_batches",
        "xinference_sdk",
        "mixedbread_sdk",
        "dashscope_sdk",
        "rerankers_lib",
        "langchain_partners",
        "agno_lib",
    ],
    "clouds": ["bedrock_boto3", "google_ranking", "openrouter_sdk", "zeroentropy_sdk"],
    "node": [
        "cohere_ai",
        "ai_sdk",
        "ai_sdk_bedrock",
        "ai_sdk_ollama",
        "voyage_node",
        "langchain_cohere_node",
    ],
}

# Stops clients' telemetry and downloads, and resets variables that the user's shell may have set.
QUIET = {
    "AGNO_TELEMETRY": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPATH": "",
}


@dataclass(frozen=True)
class Driver:
    """A file of `drivers/` in one environment."""

    name: str
    env: str

    def __str__(self) -> str:
        return f"{self.name}-{self.env}"

    def command(self, servers: Servers) -> list[str]:
        return [*_interpreter(self.env, self.name, _source(self)), *servers.arguments]


@dataclass(frozen=True)
class Block:
    """A code block of a page in one environment, with its setup and its tail."""

    name: str
    env: str
    code: str

    def __str__(self) -> str:
        return f"{self.name}-{self.env}"

    def command(self, servers: Servers) -> list[str]:
        code = self.code.replace(ADDRESS, servers.url)
        return _interpreter(self.env, f"page_{self.name}", code)

    @property
    def expected_output(self) -> list[str]:
        """The output that the comments after the block's print calls name."""
        return re.findall(r"^(?:print|console\.log)\(.*(?:#|; //) (.+)$", self.code, re.MULTILINE)


Job = Driver | Block


@dataclass(frozen=True)
class Servers:
    """The addresses of two servers, one without an API key and one with."""

    url: str
    keyed: str

    @property
    def arguments(self) -> list[str]:
        return [self.url, self.keyed, KEY]


def _source(driver: Driver) -> str | None:
    """The source of a Node driver, which must be copied next to `node_modules`; else None."""
    return (DRIVERS / f"{driver.name}.mjs").read_text() if driver.env == "node" else None


def _interpreter(env: str, name: str, source: str | None) -> list[str]:
    folder = ENVIRONMENTS / env
    if env == "node":
        script = folder / f"{name}.mjs"
        script.write_text(source or "")
        return ["node", str(script)]
    python = str(folder / "bin" / "python")
    return [python, "-c", source] if source else [python, str(DRIVERS / f"{name}.py")]


def _blocks() -> list[Block]:
    """The pages' code blocks, by the words after the name of their language.

    A page uses the setup and the tails of the pages before it, unless it has its own.
    """
    setup: dict[str, str] = {}
    tails: dict[str, str] = {}
    found = []
    for page in PAGES:
        fenced = [
            (language, dict(word.partition("=")[::2] for word in words.split()), code)
            for language, words, code in re.findall(
                r"^```(\w+)(.*)\n((?:.*\n)*?)```$", page, re.MULTILINE
            )
            if language in ("python", "js")
        ]
        setup |= {language: code for language, words, code in fenced if "setup" in words}
        tails |= {words["tail"]: code for _, words, code in fenced if "tail" in words}
        found += [
            Block(words["name"], env, setup[language] + code + tails.get(words.get("with", ""), ""))
            for language, words, code in fenced
            if "name" in words
            for env in words["env"].split(",")
        ]
    return found


DRIVEN = [Driver(name, env) for env, names in PLAN.items() for name in names]
BLOCKS = _blocks()


class Report:
    """The drivers' results, printed at the end of the run."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def table(self) -> str:
        def key(line: Mapping[str, Any]) -> tuple[str, str, str]:
            return line["client"], line["version"], line["dialect"]

        rows = ["| client | version | dialect | cases | pass |", "|---|---|---|---|---|"]
        for group, lines in groupby(sorted(self.lines, key=key), key):
            passed = [line["pass"] for line in lines]
            rows.append(f"| {' | '.join(group)} | {len(passed)} | {sum(passed)} |")
        return "\n".join(rows)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("clients")
        terminalreporter.write_line(self.table())


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    report = Report()
    request.config.pluginmanager.register(report)
    yield report
    (ENVIRONMENTS / "report.md").write_text(report.table() + "\n")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folders = [str(tmp_path_factory.mktemp("batches")) for _ in range(2)]
    with (
        serving("builtin", "--batch-dir", folders[0]) as plain,
        serving("builtin", "--api-key", KEY, "--batch-dir", folders[1]) as keyed,
    ):
        yield Servers(plain.url, keyed.url)
        for server in plain, keyed:
            server.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Job, Future[subprocess.CompletedProcess[str]]]]:
    """Starts every selected job; each test waits for its own."""
    for module in DRIVERS.glob("harness.mjs"):
        if (ENVIRONMENTS / "node").is_dir():
            (ENVIRONMENTS / "node" / module.name).write_text(module.read_text())
    home = str(tmp_path_factory.mktemp("home"))
    callspecs = [getattr(item, "callspec", None) for item in request.session.items]
    jobs = [spec.params["job"] for spec in callspecs if spec and "job" in spec.params]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        yield {job: pool.submit(_run, job, servers, home) for job in jobs}
        pool.shutdown(cancel_futures=True)


def _run(job: Job, servers: Servers, home: str) -> subprocess.CompletedProcess[str]:
    assert (ENVIRONMENTS / job.env).is_dir(), "not set up; run `make test-clients`"
    return subprocess.run(
        job.command(servers),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        cwd=home,
        env=os.environ | QUIET | {"HOME": home},
        check=False,
    )


Runs = dict[Job, "Future[subprocess.CompletedProcess[str]]"]


@pytest.mark.parametrize("job", DRIVEN, ids=str)
def test_a_client_reads_its_answers(job: Driver, runs: Runs, report: Report) -> None:
    process = runs[job].result()

    lines = [
        json.loads(line) for line in process.stdout.splitlines() if line.startswith('{"client"')
    ]
    report.lines += lines
    failed = [line for line in lines if not line["pass"]]
    assert not failed, "\n".join(
        f"{line['client']} {line['version']}, {line['case']}: {line['detail']}" for line in failed
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert lines, process.stderr[-3000:]


@pytest.mark.parametrize("job", BLOCKS, ids=str)
def test_a_block_prints_what_its_comments_say(job: Block, runs: Runs) -> None:
    process = runs[job].result()

    assert process.returncode == 0, process.stderr[-3000:]
    assert job.expected_output
    printed = process.stdout.splitlines()
    assert printed[-len(job.expected_output) :] == job.expected_output, process.stderr[-3000:]


def test_every_block_has_a_known_environment_and_the_servers_address() -> None:
    unmarked = re.findall(r"^```(?:python|js)$", PAGES[0], re.MULTILINE)
    without_address = [block.name for block in BLOCKS if ADDRESS not in block.code]
    unknown_environments = [block.env for block in BLOCKS if block.env not in PLAN]

    assert (unmarked, without_address, unknown_environments) == ([], [], [])
    assert len({str(block) for block in BLOCKS}) == len(BLOCKS) > 45


def test_every_driver_runs_in_an_environment() -> None:
    drivers = {file.stem for file in DRIVERS.iterdir() if file.suffix in (".py", ".mjs")}

    assert drivers - {"harness", "litellm_providers"} == {job.name for job in DRIVEN}
