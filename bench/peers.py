"""rankd and what people use instead, on this machine's CPU, in one run and in turn.

    python bench/peers.py [--model FOLDER] [--documents 20] [--words 76] [--rounds 2]
        [--peers tutorial native ...] [--vllm-python .venv-vllm/bin/python] [--openvino-python PATH]

Each peer gets the same queries and documents as texts and does everything itself: prompt,
tokenizer, model. Servers are asked over HTTP. Every round has a new query and new documents. CPU is
of the whole process tree while the peer works; the others are idle, but stay in memory: with less
than 32 GB, name a few --peers at a time, the same one first in each run. A peer that does not start
or answer is named with its error. Without --model the weights are random, in the shape of
Qwen3-Reranker-0.6B.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from against_vllm import vllm_command
from engine import make_random
from server import ROOT, cpu_seconds, texts
from start import memory

sys.path.insert(0, str(ROOT / "tests"))

from support import layouts
from support.servers import family, free_port

START_SECONDS = 600
ANSWER_SECONDS = 1200

Score = Callable[[str, list[str]], list[float]]


@dataclass
class Peer:
    """A running peer and its figures, one per round.

    Attributes:
        start: seconds until it could score.
        memory: MiB of the whole tree after the last round, shared pages counted once.
    """

    pid: int
    score: Score
    start: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    memory: int = 0

    def measure(self, query: str, documents: list[str]) -> None:
        cpu, wall = cpu_seconds(self.pid), time.perf_counter()
        self.scores.append(self.score(query, documents))
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(cpu_seconds(self.pid) - cpu)
        self.memory = memory(self.pid)


@dataclass(frozen=True)
class Setup:
    """What peers are opened with: the checkpoint, in several layouts, and environments."""

    model: Path
    stated: Path
    folder: Path
    vllm_python: str
    openvino_python: str


class PeerError(Exception):
    """The peer does not run here; the message is its own."""


@contextmanager
def process(command: list[str], log: Path, **pipes: int) -> Iterator[subprocess.Popen[str]]:
    # Threads that spin while they wait would count as CPU time of the peer.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "VLLM_NO_USAGE_STATS": "1"}
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(ROOT / "src")}
    with log.open("w") as output:
        run = subprocess.Popen(command, stderr=output, text=True, env=environment, **pipes)  # type: ignore[call-overload]
        try:
            yield run
        finally:
            for pid in family(run.pid):
                subprocess.run(["kill", "-KILL", str(pid)], stderr=subprocess.DEVNULL, check=False)
            run.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line] or lines
    return errors[-1][:300] if errors else "no message"


@contextmanager
def worker(kind: str, model: Path, python: str, log: Path) -> Iterator[Peer]:
    """A library in a process of its own."""
    command = [python, str(ROOT / "bench/peer_worker.py"), kind, str(model)]
    began = time.perf_counter()
    with process(command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        stdin, stdout = run.stdin, run.stdout
        if stdout.readline() != "ready\n":
            raise PeerError(_last_line(log))

        def score(query: str, documents: list[str]) -> list[float]:
            print(json.dumps({"query": query, "documents": documents}), file=stdin, flush=True)
            if not (line := stdout.readline()):
                raise PeerError(_last_line(log))
            answer: list[float] = json.loads(line)
            return answer

        yield Peer(run.pid, score, time.perf_counter() - began)


@contextmanager
def server(command: list[str], port: int, health: str, log: Path) -> Iterator[Peer]:
    """A server that answers POST /v1/rerank."""
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with process(command, log, stdout=subprocess.DEVNULL) as run:
        while not _is_ready(url + health):
            if run.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise PeerError(_last_line(log))
            time.sleep(0.5)

        def score(query: str, documents: list[str]) -> list[float]:
            body = {"query": query, "documents": documents}
            reply = httpx.post(f"{url}/v1/rerank", json=body, timeout=ANSWER_SECONDS)
            results = sorted(reply.raise_for_status().json()["results"], key=lambda r: r["index"])
            return [result["relevance_score"] for result in results]

        yield Peer(run.pid, score, time.perf_counter() - began)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def rankd(setup: Setup, engine: str, python: str, *flags: str) -> Iterator[Peer]:
    port = free_port()
    command = [python, "-m", "rankd", "serve", str(setup.model), "--engine", engine, *flags]
    # Random weights do not know the known pairs.
    command += ["--port", str(port), "--self-check", "off"]
    with server(command, port, "/readyz", setup.folder / f"rankd-{engine}.log") as peer:
        yield peer


@contextmanager
def vllm(setup: Setup) -> Iterator[Peer]:
    port = free_port()
    command = vllm_command(setup.model, setup.folder, port, python=setup.vllm_python, dtype="auto")
    with server(command, port, "/health", setup.folder / "vllm.log") as peer:
        yield peer


@contextmanager
def library(setup: Setup, kind: str) -> Iterator[Peer]:
    model = setup.model if kind == "tutorial" else setup.stated
    with worker(kind, model, sys.executable, setup.folder / f"{kind}.log") as peer:
        yield peer


@contextmanager
def openvino(setup: Setup) -> Iterator[Peer]:
    if not setup.openvino_python:
        raise PeerError("needs --openvino-python: openvino-genai and optimum-intel")
    exported = setup.folder / "openvino"
    command = [str(Path(setup.openvino_python).parent / "optimum-cli"), "export", "openvino"]
    command += ["--model", str(setup.model), "--task", "text-generation", str(exported)]
    if (ended := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise PeerError(f"optimum-cli: {ended.stderr.strip().splitlines()[-1][:300]}")
    log = setup.folder / "openvino.log"
    with worker("openvino", exported, setup.openvino_python, log) as peer:
        yield peer


NAMES = {
    "tutorial": "transformers, as in tutorials, float32",
    "cross-encoder-float32": "sentence-transformers, float32",
    "cross-encoder-bfloat16": "sentence-transformers, bfloat16",
    "openvino": "OpenVINO GenAI, its default type",
    "vllm": "vLLM's server, its default type",
    "rankd-vllm": "rankd on vLLM",
    "native-float32": "rankd, native engine, float32",
    "native": "**rankd, native engine**",
}


@contextmanager
def opened(name: str, setup: Setup) -> Iterator[Peer]:
    match name:
        case "native":
            peer = rankd(setup, "native", sys.executable)
        case "native-float32":
            peer = rankd(setup, "native", sys.executable, "--dtype", "float32")
        case "rankd-vllm":
            peer = rankd(setup, "vllm", setup.vllm_python, "--max-tokens", "2048")
        case "vllm":
            peer = vllm(setup)
        case "openvino":
            peer = openvino(setup)
        case _:
            peer = library(setup, name)
    with peer as running:
        yield running


def bench(setup: Setup, options: argparse.Namespace) -> None:
    peers: dict[str, Peer] = {}
    problems: dict[str, str] = {}
    with ExitStack() as stack:
        for name in options.peers:
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            try:
                peers[name] = stack.enter_context(opened(name, setup))
                peers[name].score("What?", ["This.", "That."])
            except (PeerError, httpx.HTTPError) as problem:
                peers.pop(name, None)
                problems[name] = str(problem)
        text = texts()
        for number in range(options.rounds):
            query = f"{text(8)} {number}?"
            documents = [text(options.words) for _ in range(options.documents)]
            for name, peer in list(peers.items()):
                print(f"round {number + 1}: {name} ...", file=sys.stderr, flush=True)
                try:
                    peer.measure(query, documents)
                except (PeerError, httpx.HTTPError) as problem:
                    del peers[name]
                    problems[name] = f"in round {number + 1}: {problem}"
    _report(peers, problems, options)


def _report(peers: dict[str, Peer], problems: dict[str, str], options: argparse.Namespace) -> None:
    first, count = next(iter(peers.values())), options.documents
    print(f"{count} documents of {options.words} words, {options.rounds} rounds in turn.")
    print("Medians; ratios to the first row, paired by round.\n")
    print("| | CPU s | CPU ratio | wall s | documents/s | MiB | start s | scores apart |")
    print("|---|---|---|---|---|---|---|---|")
    for name, peer in peers.items():
        wall, cpu = statistics.median(peer.wall), statistics.median(peer.cpu)
        pairs = zip(first.cpu, peer.cpu, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        apart = max(
            abs(a - b)
            for one, other in zip(first.scores, peer.scores, strict=True)
            for a, b in zip(one, other, strict=True)
        )
        print(
            f"| {NAMES[name]} | {cpu:.1f} | {ratio:.2f} | {wall:.1f} "
            f"| {count / wall:.2f} | {peer.memory:,} | {peer.start:.0f} | {apart:.1e} |"
        )
    for name, problem in problems.items():
        print(f"\n{NAMES[name]} does not run here: {problem}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a causal Qwen3 checkpoint; default: random")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--words", type=int, default=76, help="of a document; about 90 tokens")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--vllm-python", default=".venv-vllm/bin/python")
    parser.add_argument("--openvino-python", default="")
    options = parser.parse_args()
    # So that a terminated run ends its peers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as name:
        folder = Path(name)
        model = options.model or Path(make_random(folder / "qwen3-0.6b-random"))
        stated = layouts.stated(folder / "stated", model, template=layouts.QWEN)
        bench(Setup(model, stated, folder, options.vllm_python, options.openvino_python), options)


if __name__ == "__main__":
    main()
