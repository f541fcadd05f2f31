"""GET paths under a prefix answer as the vendor's published schema says."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from test_references import assert_shape

from rankd.config.settings import Settings
from rankd.dialects.registry import DIALECTS
from support.calling import calling

OPENAI_MODELS = {"object": "list", "data": [{"id": str, "object": "model", "created": int}]}
PINECONE_MODEL = {
    "model": str,
    "short_description": str,
    "type": "rerank",
    "supported_parameters": [
        {"parameter": str, "type": str, "value_type": str, "required": bool, "allowed_values": list}
    ],
    "max_sequence_length": int,
    "max_batch_size": int,
}
COHERE_MODEL = {"name": str, "endpoints": ["rerank"], "finetuned": False, "context_length": int}

SHAPES: dict[str, Any] = {
    # infinity_emb's pymodels.py: `stats` is required, `owned_by` is a constant.
    "/infinity/models": {
        "object": "list",
        "data": [
            {
                "id": str,
                "stats": {"batch_size": int},
                "object": "model",
                "owned_by": "infinity",
                "created": int,
                "backend": str,
                "capabilities": ["rerank"],
            }
        ],
    },
    "/infinity/health": {"unix": float},
    # vLLM 0.33, entrypoints/serve/engine/protocol.py.
    "/vllm/v1/models": {
        "object": "list",
        "data": [
            {
                "id": str,
                "object": "model",
                "created": int,
                "owned_by": "vllm",
                "root": str,
                "parent": None,
                "max_model_len": int,
                "permission": list,
            }
        ],
    },
    "/vllm/version": {"version": str},
    # llama.cpp, tools/server/README.md.
    "/llamacpp/health": {"status": "ok"},
    "/llamacpp/v1/models": {
        "object": "list",
        "data": [
            {
                "id": str,
                "object": "model",
                "created": int,
                "owned_by": "llamacpp",
                "meta": {"n_ctx_train": int},
            }
        ],
    },
    # pinecone-api, inference_2026-07.oas.yaml.
    "/pinecone/models": {"models": [PINECONE_MODEL]},
    "/pinecone/models/bge-reranker-v2-m3": PINECONE_MODEL | {"model": "bge-reranker-v2-m3"},
    # cohere-openapi.yaml.
    "/cohere/v1/models": {"models": [COHERE_MODEL]},
    "/cohere/v1/models/rerank-v3.5": COHERE_MODEL | {"name": "rerank-v3.5"},
    # Others list models as OpenAI does.
    **{
        f"/{name}/v1/models": OPENAI_MODELS
        for name in ("nim", "jina", "siliconflow", "xinference", "sglang", "openai", "dashscope")
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


def test_every_listed_shape_with_a_prefix_is_of_a_dialect() -> None:
    prefixes = {path.split("/")[1] for path in SHAPES} - {"models", "health"}

    assert prefixes <= {dialect.name for dialect in DIALECTS}
    assert prefixes >= {dialect.name for dialect in DIALECTS if dialect.prefix_router}


@pytest.mark.parametrize("path", ["/cohere/v1/models/gpt", "/pinecone/models/gpt"])
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
            for path in ("/infinity/models", "/vllm/v1/models", "/llamacpp/v1/models")
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


def test_infinity_refuses_a_top_n_of_0(client: TestClient) -> None:
    body = {"query": "q", "documents": ["a", "b"]}

    reply = client.post("/infinity/rerank", json={**body, "top_n": 0})

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "top_n"
    assert len(client.post("/infinity/rerank", json={**body, "top_n": 1}).json()["results"]) == 1
