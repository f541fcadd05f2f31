"""Elasticsearch and OpenSearch can read the answers to the requests of docs/recipes.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
CLIENTS = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
QUERY = 'Which café roasts "its own" beans?'
DOCUMENTS = ["Trains leave every\ntwenty minutes.", 'This café roasts "its own" beans.', "熊猫。"]


def recipe(name: str) -> dict[str, Any]:
    [block] = re.findall(rf"^```json {name}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    parsed: dict[str, Any] = json.loads(block)
    return parsed


def filled(template: str, values: dict[str, str]) -> Any:
    """The request: a `${name}` of the template is its value, inserted as it is."""
    return json.loads(re.sub(r"\$\{([\w.]+)\}", lambda name: values[name[1]], template))


def path(url: str) -> str:
    assert url.startswith("http://HOST:8000/")
    return url.removeprefix("http://HOST:8000")


def test_elasticsearch_reads_index_and_score(client: TestClient) -> None:
    settings = recipe("elasticsearch")["service_settings"]
    paths = settings["response"]["json_parser"]

    body = filled(settings["request"], {"query": json.dumps(QUERY), "input": json.dumps(DOCUMENTS)})
    answer = client.post(path(settings["url"]), json=body).json()

    for name, field in {"reranked_index": "index", "relevance_score": "relevance_score"}.items():
        assert paths[name] == f"$.results[*].{field}"
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert all(type(result["relevance_score"]) is float for result in answer["results"])
    assert {"${api_key}"} == set(re.findall(r"\$\{\w+\}", settings["headers"]["Authorization"]))
    assert set(settings["secret_parameters"]) == {"api_key"}


def test_opensearch_reads_coheres_answer(client: TestClient) -> None:
    settings = recipe("opensearch")
    [action] = settings["actions"]

    body = filled(
        action["request_body"],
        {
            "parameters.documents": json.dumps(DOCUMENTS),
            "parameters.query": json.dumps(QUERY)[1:-1],
            "parameters.model": settings["parameters"]["model"],
            "parameters.top_n": str(len(DOCUMENTS)),
        },
    )
    answer = client.post(path(action["url"]), json=body).json()

    assert "meta" in answer
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert action["post_process_function"] in CLIENTS
    assert action["headers"]["Authorization"] == "Bearer ${credential.key}"
    assert set(settings["credential"]) == {"key"}


@pytest.mark.parametrize(
    "system",
    [
        *("Dify", "RAGFlow", "Open WebUI", "LangChain", "LlamaIndex", "Haystack"),
        *("Elasticsearch", "OpenSearch", "Weaviate", "Milvus"),
    ],
)
def test_a_recipe_has_the_address_of_the_page_of_clients(system: str) -> None:
    section = PAGE.split(f"\n## {system}\n")[1].split("\n## ")[0]
    urls = set(re.findall(r'http://(?:HOST|127\.0\.0\.1):8000[^\s"`]*', section))
    urls -= {"http://HOST:8000/.*$"}  # A pattern.

    assert urls
    rows = [row for row in CLIENTS.splitlines() if system in row] or [CLIENTS]
    if "HOST" in "".join(urls):
        assert any(all(f"`{url}`" in row for url in urls) for row in rows), (urls, rows)
    else:
        assert all(f'"{url}"' in CLIENTS for url in urls)


def test_the_programs_on_the_page_are_python() -> None:
    programs = re.findall(r"^```python[^\n]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

    assert len(programs) == 4
    for program in programs:
        compile(program, "recipes.md", "exec")
