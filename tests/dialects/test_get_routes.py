"""GET paths, beyond what the vendors' schemas say (`test_schema.py`)."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from test_references import assert_shape

from rankd.config.settings import Settings
from support.calling import calling

OPENAI_MODELS = {"object": "list", "data": [{"id": str, "object": "model", "created": int}]}
SHAPES: dict[str, Any] = {
    # Others list models as OpenAI does.
    **{
        f"/{name}/v1/models": OPENAI_MODELS
        for name in ("nim", "jina", "siliconflow", "xinference", "openai", "dashscope")
    },
    "/models": OPENAI_MODELS,
    "/health": {"status": "ready"},
}


@pytest.mark.parametrize("path", SHAPES)
def test_a_get_has_the_vendors_shape(client: TestClient, path: str) -> None:
    reply = client.get(path)

    assert reply.status_code == 200
    assert_shape(reply.json(), SHAPES[path])
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/cohere/v1/models/gpt", "/pinecone/models/gpt", "/sglang/v1/models/gpt"]
)
def test_a_strict_server_knows_no_other_model(path: str) -> None:
    with calling(Settings(engine="fake", strict_model=True)) as client:
        reply = client.get(path)

    assert reply.status_code == 404
    assert "model 'gpt' is not served here" in reply.json()["message"]


def test_lists_of_models_hold_every_alias() -> None:
    settings = Settings(engine="fake", aliases={"bge": {"score_threshold": 0.5}})
    with calling(settings) as client:
        found = {
            path: client.get(path).json()
            for path in (
                "/infinity/models",
                "/vllm/v1/models",
                "/llamacpp/v1/models",
                "/sglang/v1/models",
            )
        }
        named = [client.get("/cohere/v1/models").json()["models"]]
        named.append(client.get("/pinecone/models").json()["models"])

    assert all([card["id"] for card in one["data"]][1:] == ["bge"] for one in found.values())
    assert [[card.get("name") or card["model"] for card in one][1:] for one in named] == [
        ["bge"],
        ["bge"],
    ]


def test_teis_info_names_the_served_model(client: TestClient) -> None:
    assert client.get("/info").json()["served_model_name"] == "builtin"


@pytest.mark.parametrize("path", ["/rerank", "/tei/rerank", "/"])
def test_tei_calls_an_empty_request_empty(client: TestClient, path: str) -> None:
    reply = client.post(path, json={"query": "q", "texts": []})

    assert reply.status_code == 400
    assert reply.json()["error_type"] == "Empty"
    assert client.post(path, json={"query": "", "texts": ["a"]}).json()["error_type"] == (
        "Validation"
    )
