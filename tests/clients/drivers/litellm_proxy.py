"""A LiteLLM proxy between Cohere's SDK and rankd, one route for each provider."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cohere
from cohere.core.api_error import ApiError

from harness import (
    BEIJING,
    DOCUMENTS,
    QUERY,
    SENTENCE,
    Server,
    case,
    each,
    eq,
    main,
    ranked,
    refused,
)
from litellm_providers import PROVIDERS

KEY = "sk-proxy"
START_SECONDS = 120
KEYED, UNKEYED = "with the right key", "with a wrong key"


def config(server: Server) -> dict[str, Any]:
    """Routes to every provider, and two to the server that requires a key."""

    def route(name: str, model: str, base: str, key: str) -> dict[str, Any]:
        parameters = {"model": model, "api_base": base, "api_key": key}
        return {"model_name": name, "litellm_params": parameters}

    return {
        "model_list": [
            *(
                route(provider.name, provider.model, server.url + provider.base, "any")
                for provider in PROVIDERS
            ),
            route(KEYED, "cohere/qwen3-reranker", server.keyed, server.key),
            route(UNKEYED, "cohere/qwen3-reranker", server.keyed, "wrong"),
        ],
        "general_settings": {"master_key": KEY},
        # LiteLLM's router retries by default.
        "router_settings": {"num_retries": 0},
    }


@contextmanager
def proxy(server: Server) -> Iterator[str]:
    """Runs the proxy as a process on a free port; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "proxy.yaml"
        # JSON is YAML.
        file.write_text(json.dumps(config(server)))
        # As LiteLLM's console script does.
        program = [sys.executable, "-c", "import litellm; litellm.run_server()"]
        arguments = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(
                [*program, *arguments], stdout=log, stderr=log, cwd=folder, env=os.environ
            )
            try:
                url = f"http://127.0.0.1:{port}"
                if not _alive(url, process):
                    log.seek(0)
                    raise RuntimeError(f"the proxy did not start: {log.read()[-2000:]}")
                yield url
            finally:
                process.terminate()
                process.wait(30)


def _alive(url: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"{url}/health/liveliness", timeout=5):
                return True
        except OSError:
            time.sleep(0.5)
    return False


def client(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key=KEY, base_url=url)


def check(answer: Any, count: int, logits: bool = False) -> None:
    scores = [result.relevance_score for result in answer.results]
    if logits:
        eq(answer.results[0].index, 1)
        eq((len(scores), scores), (count, sorted(scores, reverse=True)))
    else:
        ranked([result.index for result in answer.results], scores, count)


def cases(name: str, logits: bool) -> dict[str, Callable[[Server], Any]]:
    def ranks(server: Server) -> None:
        # The proxy is started once, by main().
        answer = client(URL[0]).rerank(model=name, query=QUERY, documents=DOCUMENTS)
        check(answer, len(DOCUMENTS), logits)

    def top_n(server: Server) -> None:
        answer = client(URL[0]).rerank(model=name, query=QUERY, documents=DOCUMENTS, top_n=2)
        check(answer, 2, logits)

    return {"ranks": ranks, "top_n": top_n}


URL: list[str] = []
CLIENT, PACKAGE = "litellm proxy", "litellm"

for provider in PROVIDERS:
    each(
        f"{CLIENT}, {provider.name}/",
        PACKAGE,
        provider.dialect,
        **cases(provider.name, provider.dialect == "NVIDIA"),
    )


@case(f"{CLIENT}, cohere/", PACKAGE, "Cohere v2")
def ranks_through_v1(server: Server) -> None:
    answer = cohere.Client(api_key=KEY, base_url=URL[0]).rerank(
        model="cohere", query=QUERY, documents=DOCUMENTS, return_documents=True
    )

    check(answer, len(DOCUMENTS))
    eq(answer.results[0].document.text, BEIJING)


@case(f"{CLIENT}, cohere/", PACKAGE, "Cohere v2")
def bad_request(server: Server) -> None:
    """Version 1.83 answers 500, which Cohere's SDK retries twice; the message is kept."""
    with refused(ApiError, SENTENCE):
        client(URL[0]).rerank(model="cohere", query=" ", documents=DOCUMENTS)


@case(f"{CLIENT}, cohere/", PACKAGE, "Cohere v2")
def right_key(server: Server) -> None:
    check(client(URL[0]).rerank(model=KEYED, query=QUERY, documents=DOCUMENTS), len(DOCUMENTS))


@case(f"{CLIENT}, cohere/", PACKAGE, "Cohere v2")
def wrong_key(server: Server) -> None:
    with refused(ApiError, "invalid api token"):
        client(URL[0]).rerank(model=UNKEYED, query=QUERY, documents=DOCUMENTS)


if __name__ == "__main__":
    with proxy(Server(*sys.argv[1:4])) as url:
        URL.append(url)
        main()
