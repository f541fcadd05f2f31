"""Throughput of rankd on vLLM, rankd on the native engine and vLLM's own server.

Measures the host path with a tiny model: HTTP, JSON, prompts, queues, the way to the engine and
back. All three get one checkpoint, the same prompts (vLLM's server gets the template as a file)
and the same step size. Prints how far their scores differ. Needs the environment of
`make test-vllm`.

    python bench/against_vllm.py [--seconds 8] [--clients 1 8 32] [--vllm-client]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from server import DOCUMENTS, Load, bodies, measure

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rankd.config.settings import Settings
from rankd.prompts import qwen3
from support.checkpoints import make_checkpoint
from support.servers import free_port, serving

NAME = "near-zero"
MAX_TOKENS = 2048
STEP_TOKENS = 4096
START_SECONDS = 300
CLIENT_REQUESTS = 100

OVERRIDES = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}

# vLLM's client by its Python entry point: the `vllm` command needs a package of that name, and
# the CPU build has another.
CLIENT = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True)
class Peer:
    """A running server."""

    url: str
    pid: int


Opener = Callable[[Path], AbstractContextManager[Peer]]


@contextmanager
def rankd(model: Path, engine: str) -> Iterator[Peer]:
    arguments = ["--engine", engine, "--self-check", "off", "--cache-mb", "0", "--no-access-log"]
    arguments += ["--max-tokens", str(MAX_TOKENS), "--served-model-name", NAME]
    with serving(str(model), *arguments) as server:
        yield Peer(server.url, server.process.pid)
        server.stop(signal.SIGTERM)


def vllm_command(model: Path, folder: Path, port: int, *, python: str, dtype: str) -> list[str]:
    """vLLM's own server, with the arguments that rankd gives its engine on a CPU.

    Args:
        folder: where the template is written.
    """
    template = folder / "template.jinja"
    template.write_text(_template())
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", NAME, "--port", str(port)]
    command += ["--runner", "pooling", "--convert", "classify", "--dtype", dtype]
    command += ["--hf-overrides", json.dumps(OVERRIDES), "--chat-template", str(template)]
    command += ["--max-model-len", str(MAX_TOKENS), "--max-num-batched-tokens", str(STEP_TOKENS)]
    command += ["--max-num-seqs", "256", "--block-size", "32", "--enforce-eager"]
    return [*command, "--disable-log-stats", "--disable-uvicorn-access-log"]


@contextmanager
def vllm_server(model: Path) -> Iterator[Peer]:
    """vLLM's own server."""
    port = free_port()
    command = vllm_command(model, model, port, python=sys.executable, dtype="float32")
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (model / "vllm.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield Peer(_wait_until_ready(process, f"http://127.0.0.1:{port}"), process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


OPENERS: dict[str, Opener] = {
    "vLLM's own server": vllm_server,
    "rankd, vllm engine": lambda model: rankd(model, "vllm"),
    "rankd, native engine": lambda model: rankd(model, "native"),
}


def _template() -> str:
    """Qwen's prompt as vLLM's score template. Jinja drops the last newline: it stands twice."""
    question = qwen3.prefix_text(Settings().instruction, _message("query"))
    return qwen3.PREFIX + question + " " + _message("document") + qwen3.SUFFIX + "\n"


def _message(role: str) -> str:
    return f'{{{{ (messages | selectattr("role", "eq", "{role}") | first).content }}}}'


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> str:
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS and process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return url
        except httpx.TransportError:
            time.sleep(1)
    raise SystemExit("vLLM's server did not start")


def scores(url: str) -> list[float]:
    """The scores of one request, in the order of its documents."""
    reply = httpx.post(
        f"{url}/v1/rerank", content=bodies(1)[0], headers={"content-type": "application/json"}
    )
    results = sorted(reply.raise_for_status().json()["results"], key=lambda r: r["index"])
    return [result["relevance_score"] for result in results]


def vllm_client(url: str, model: Path, results: Path) -> dict[str, Any]:
    """The results of vLLM's own benchmark client."""
    options = ["--backend", "vllm-rerank", "--endpoint", "/v1/rerank", "--base-url", url]
    options += ["--model", NAME, "--tokenizer", str(model), "--dataset-name", "random-rerank"]
    options += ["--random-input-len", "256", "--random-batch-size", str(DOCUMENTS)]
    options += ["--num-prompts", str(CLIENT_REQUESTS * DOCUMENTS)]
    options += ["--max-concurrency", "8", "--disable-tqdm"]
    options += ["--save-result", "--result-filename", str(results)]
    command = [sys.executable, "-c", CLIENT, *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    report: dict[str, Any] = json.loads(results.read_text())
    return report


@dataclass
class Outcome:
    scores: list[float]
    loads: list[Load]
    client: dict[str, Any]


def run(opener: Opener, model: Path, options: argparse.Namespace) -> Outcome:
    with opener(model) as peer:
        first_scores = scores(peer.url)
        loads = [
            asyncio.run(measure(peer.url, peer.pid, clients, options.seconds))
            for clients in options.clients
        ]
        report = {}
        if options.vllm_client:
            report = vllm_client(peer.url, model, model / "client.json")
        return Outcome(first_scores, loads, report)


def print_report(outcomes: dict[str, Outcome]) -> None:
    first = next(iter(outcomes.values()))
    print("\n| server | clients | documents/s | requests/s | p50 ms | p95 ms | CPU us/doc | x |")
    print("|---|---|---|---|---|---|---|---|")
    for name, outcome in outcomes.items():
        for load, theirs in zip(outcome.loads, first.loads, strict=True):
            ratio = (load.documents / load.seconds) / (theirs.documents / theirs.seconds)
            print(f"| {name} {load.row()} {ratio:.2f} |")
    for name, outcome in outcomes.items():
        apart = max(abs(a - b) for a, b in zip(outcome.scores, first.scores, strict=True))
        print(f"\n{name}: scores differ by at most {apart:.1e} from the first server's")
        if outcome.client:
            report = outcome.client
            print(
                f"  vLLM's client: {report['completed']} of {CLIENT_REQUESTS} requests answered, "
                f"{report['request_throughput']:.1f} requests/s, "
                f"{report['total_token_throughput']:,.0f} tokens/s, "
                f"median {report['median_e2el_ms']:.1f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="per level of concurrency")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--vllm-client", action="store_true", help="run vLLM's own client too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # vLLM's CPU attention needs a head dimension of at least 32.
        shape = {"hidden": 32, "layers": 1, "mlp": 32, "heads": 1, "kv_heads": 1, "head_dim": 32}
        model = make_checkpoint(Path(folder) / NAME, **shape)  # type: ignore[arg-type]
        outcomes = {}
        for name, opener in OPENERS.items():
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            outcomes[name] = run(opener, model, options)
        print_report(outcomes)


if __name__ == "__main__":
    main()
