"""Vendors' own API references: the request that each documents, and every field it lists.

A request is the reference's example with another host and other texts. It goes to the
vendor's own path, where the union answers it, and to the same path under the prefix that
forces the vendor's shape. Where the union must serve several vendors on one path, it
owes the reference less: see `union`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

QUERY = "Who repairs bicycles in Utrecht?"
TEXTS = [
    "Ferries to Texel leave from Den Helder.",
    "Anna repairs bicycles in her shop in Utrecht.",
    "Bicycles are cheap in spring.",
]
OBJECTS = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]


@dataclass(frozen=True)
class Maybe:
    """A field that the reference lists and does not always send."""

    shape: Any


@dataclass(frozen=True)
class Reference:
    """One example of one vendor's reference.

    Attributes:
        path: the vendor's own.
        prefix: what forces the vendor's shape.
        shape: what the reference lists: types, `[items]`, `{field: shape}`, or a value.
        union: the shape at the path itself, where it cannot be the vendor's; None where
            only the prefix can tell this body from others.
        kept: results in the order of the request; most vendors sort them.
    """

    name: str
    path: str
    prefix: str
    body: dict[str, Any]
    shape: Any
    union: Any = "same"
    headers: dict[str, str] = field(default_factory=dict)
    kept: bool = False
    logits: bool = False


TOKENS = {"prompt_tokens": int, "total_tokens": int}
RANKED = {"index": int, "relevance_score": float}
RANKED_OBJECT = {**RANKED, "document": {"text": str}}
BEARER = {"Authorization": "Bearer not-a-real-key"}

# Cohere: docs.cohere.com/reference/rerank and /v1/reference/rerank, cohere-openapi.yaml.
COHERE_META = {"api_version": {"version": str}, "billed_units": {"search_units": int}}
COHERE = [
    Reference(
        "cohere-v2",
        "/v2/rerank",
        "/cohere",
        {"model": "rerank-v4.0-pro", "query": QUERY, "documents": TEXTS, "top_n": 3},
        {"id": str, "results": [RANKED], "meta": COHERE_META},
        headers={"X-Client-Name": "reference"},
    ),
    Reference(
        "cohere-v2-options",
        "/v2/rerank",
        "/cohere",
        {
            "model": "rerank-v4.0-fast",
            "query": QUERY,
            "documents": TEXTS,
            "max_tokens_per_doc": 4096,
            "priority": 0,
        },
        {"id": str, "results": [RANKED], "meta": COHERE_META},
    ),
    # "The text field is required and all other fields will be preserved in the response."
    Reference(
        "cohere-v1",
        "/v1/rerank",
        "/cohere",
        {
            "model": "rerank-v3.5",
            "query": QUERY,
            "documents": OBJECTS,
            "top_n": 3,
            "return_documents": True,
            "max_chunks_per_doc": 10,
        },
        {
            "id": str,
            "results": [{**RANKED, "document": {"text": str, "id": str}}],
            "meta": COHERE_META,
        },
    ),
    Reference(
        "cohere-v1-strings",
        "/v1/rerank",
        "/cohere",
        {"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS, "return_documents": True},
        {"id": str, "results": [RANKED_OBJECT], "meta": COHERE_META},
    ),
]

# Jina: api.jina.ai's reranker OpenAPI.
JINA_SHAPE = {"model": str, "usage": {"total_tokens": int}, "results": [RANKED_OBJECT]}
JINA = [
    Reference(
        "jina",
        "/v1/rerank",
        "/jina",
        {
            "model": "jina-reranker-v3",
            "query": QUERY,
            "top_n": 3,
            "documents": TEXTS,
            "return_documents": True,
        },
        JINA_SHAPE,
    ),
    Reference(
        "jina-objects",
        "/v1/rerank",
        "/jina",
        {
            "model": "jina-reranker-m0",
            "query": {"text": QUERY},
            "documents": [{"text": text} for text in TEXTS],
            "return_documents": True,
        },
        JINA_SHAPE,
    ),
]

# Voyage: docs.voyageai.com/reference/reranker-api.
VOYAGE = [
    Reference(
        "voyage",
        "/v1/rerank",
        "/voyage",
        {
            "query": QUERY,
            "documents": TEXTS,
            "model": "rerank-2.5",
            "top_k": 3,
            "return_documents": True,
            "truncation": True,
        },
        {
            "object": "list",
            "data": [{**RANKED, "document": str}],
            "model": str,
            "usage": {"total_tokens": int},
        },
    ),
    Reference(
        "voyage-nulls",
        "/v1/rerank",
        "/voyage",
        {"query": QUERY, "documents": TEXTS, "model": "rerank-2.5", "top_k": None},
        {"object": "list", "data": [RANKED], "model": str, "usage": {"total_tokens": int}},
        union=None,
    ),
]

# NVIDIA NIM: docs.nvidia.com/nim/nemo-retriever/text-reranking.
NIM_BODY = {
    "model": "nvidia/llama-nemotron-rerank-1b-v2",
    "query": {"text": QUERY},
    "passages": [{"text": text} for text in TEXTS],
    "truncate": "END",
}
NIM_SHAPE = {"rankings": [{"index": int, "logit": float}], "usage": TOKENS}
NIM = [
    Reference("nim", "/v1/ranking", "/nim", NIM_BODY, NIM_SHAPE, logits=True),
    Reference(
        "nim-hosted",
        "/v1/retrieval/nvidia/llama-nemotron-rerank-1b-v2/reranking",
        "/nim",
        NIM_BODY,
        NIM_SHAPE,
        logits=True,
    ),
]

# Mixedbread: mixedbread.com/api-reference/endpoints/reranking, its SDK's types.
MIXEDBREAD_SHAPE = {
    "usage": {**TOKENS, "completion_tokens": Maybe(int)},
    "model": str,
    "object": "list",
    "top_k": int,
    "return_input": bool,
}
MIXEDBREAD = [
    Reference(
        "mixedbread",
        "/v1/reranking",
        "/mixedbread",
        {
            "model": "mixedbread-ai/mxbai-rerank-large-v2",
            "query": QUERY,
            "input": TEXTS,
            "top_k": 3,
            "return_input": True,
        },
        {
            **MIXEDBREAD_SHAPE,
            "data": [{"index": int, "score": float, "input": str, "object": "rank_result"}],
        },
    ),
    Reference(
        "mixedbread-objects",
        "/v1/reranking",
        "/mixedbread",
        {
            "model": "mixedbread-ai/mxbai-rerank-large-v2",
            "query": QUERY,
            "input": OBJECTS,
            "rank_fields": ["text"],
            "return_input": True,
        },
        {
            **MIXEDBREAD_SHAPE,
            "data": [
                {
                    "index": int,
                    "score": float,
                    "input": {"id": str, "text": str},
                    "object": "rank_result",
                }
            ],
        },
    ),
    # The SDK's own default: the model may be left out, too.
    Reference(
        "mixedbread-short",
        "/v1/reranking",
        "/mixedbread",
        {"query": QUERY, "input": TEXTS},
        {**MIXEDBREAD_SHAPE, "data": [{"index": int, "score": float}]},
    ),
]

# DashScope: help.aliyun.com/zh/model-studio/text-rerank-api, docs.qwencloud.com.
DASHSCOPE = [
    Reference(
        "dashscope",
        "/api/v1/services/rerank/text-rerank/text-rerank",
        "/dashscope",
        {
            "model": "qwen3-rerank",
            "input": {"query": QUERY, "documents": TEXTS},
            "parameters": {
                "return_documents": True,
                "top_n": 3,
                "instruct": "Given a web search query, retrieve passages that answer it.",
            },
        },
        {
            "output": {"results": [RANKED_OBJECT]},
            "usage": {"total_tokens": int},
            "request_id": str,
        },
    ),
    Reference(
        "dashscope-compatible",
        "/compatible-api/v1/reranks",
        "/dashscope",
        {
            "model": "qwen3-rerank",
            "documents": TEXTS,
            "query": QUERY,
            "top_n": 3,
            "instruct": "Given a web search query, retrieve passages that answer it.",
        },
        {
            "id": str,
            "object": "list",
            "model": str,
            "results": [{**RANKED, "document": Maybe({"text": str})}],
            "usage": {"total_tokens": int},
        },
    ),
]

# Hugging Face TEI: docs/openapi.json of text-embeddings-inference.
TEI = [
    Reference(
        "tei",
        "/rerank",
        "/tei",
        {
            "query": QUERY,
            "raw_scores": False,
            "return_text": False,
            "texts": TEXTS,
            "truncate": False,
            "truncation_direction": "right",
        },
        [{"index": int, "score": float}],
    ),
    Reference(
        "tei-text",
        "/rerank",
        "/tei",
        {"query": QUERY, "texts": TEXTS, "return_text": True, "truncation_direction": "Left"},
        [{"index": int, "text": str, "score": float}],
    ),
]

# Infinity: its pymodels.py.
INFINITY_BODY = {
    "query": QUERY,
    "documents": TEXTS,
    "return_documents": True,
    "raw_scores": False,
    "model": "default/not-specified",
    "top_n": 3,
}
INFINITY_SHAPE = {
    "object": "rerank",
    "model": str,
    "usage": TOKENS,
    "id": str,
    "created": int,
}
INFINITY = [
    Reference(
        "infinity",
        "/rerank",
        "/infinity",
        INFINITY_BODY,
        {**INFINITY_SHAPE, "results": [{**RANKED, "document": str}]},
        # vLLM's clients want an object for the same bytes.
        union={**INFINITY_SHAPE, "results": [RANKED_OBJECT]},
    ),
    Reference(
        "infinity-short",
        "/rerank",
        "/infinity",
        {**INFINITY_BODY, "return_documents": False},
        {**INFINITY_SHAPE, "results": [RANKED]},
    ),
]

# Xinference: its types.py and restful_api.py.
XINFERENCE = [
    Reference(
        "xinference",
        "/v1/rerank",
        "/xinference",
        {
            "model": "bge-reranker-v2-m3",
            "query": QUERY,
            "documents": TEXTS,
            "top_n": 3,
            "return_documents": True,
            "return_len": True,
        },
        {
            "id": str,
            "results": [RANKED_OBJECT],
            "meta": {"tokens": {"input_tokens": int, "output_tokens": int}},
        },
    ),
]

# SiliconFlow: docs.siliconflow.com/en/api-reference/rerank/create-rerank.
SILICONFLOW_SHAPE = {
    "id": str,
    "results": [RANKED_OBJECT],
    "tokens": {"input_tokens": int, "output_tokens": int},
}
SILICONFLOW = [
    Reference(
        "siliconflow",
        "/v1/rerank",
        "/siliconflow",
        {
            "model": "BAAI/bge-reranker-v2-m3",
            "query": QUERY,
            "documents": TEXTS,
            "top_n": 3,
            "return_documents": True,
            "max_chunks_per_doc": 1024,
            "overlap_tokens": 80,
        },
        SILICONFLOW_SHAPE,
        # Its newer answers count tokens in `meta`, as the union does.
        union={"id": str, "results": [RANKED_OBJECT], "meta": {"tokens": dict}},
    ),
    Reference(
        "siliconflow-instruction",
        "/v1/rerank",
        "/siliconflow",
        {
            "model": "Qwen/Qwen3-Reranker-8B",
            "query": QUERY,
            "documents": TEXTS,
            "instruction": "Please rerank the documents based on the query.",
            "return_documents": True,
        },
        SILICONFLOW_SHAPE,
        union={"id": str, "results": [RANKED_OBJECT], "meta": {"tokens": dict}},
    ),
]

# Pinecone: pinecone-api, inference_2026-07.oas.yaml.
PINECONE = [
    Reference(
        "pinecone",
        "/rerank",
        "/pinecone",
        {
            "model": "bge-reranker-v2-m3",
            "query": QUERY,
            "top_n": 3,
            "return_documents": True,
            "rank_fields": ["text"],
            "documents": OBJECTS,
            "parameters": {"truncate": "END"},
        },
        {
            "model": str,
            "data": [{"index": int, "score": float, "document": {"id": str, "text": str}}],
            "usage": {"rerank_units": int},
        },
        union=None,
        headers={"Api-Key": "not-a-real-key", "X-Pinecone-Api-Version": "2026-07"},
    ),
]

# SGLang: docs.sglang.io, rerank models; serving_rerank.py.
SGLANG = [
    Reference(
        "sglang",
        "/v1/rerank",
        "/sglang",
        {"model": "Qwen/Qwen3-Reranker-8B", "query": QUERY, "documents": TEXTS, "top_n": 3},
        [{"score": float, "document": str, "index": int, "meta_info": dict}],
        union=None,
    ),
]

# llama.cpp: tools/server/README.md, "Reranking".
LLAMACPP_SHAPE = {"model": str, "object": "list", "usage": TOKENS, "results": [RANKED]}
LLAMACPP = [
    Reference(
        f"llamacpp{path.replace('/', '-')}",
        path,
        "/llamacpp",
        {"model": "some-model", "query": QUERY, "top_n": 3, "documents": TEXTS},
        LLAMACPP_SHAPE,
        union={**LLAMACPP_SHAPE, "object": str},
    )
    for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
]

# vLLM: docs.vllm.ai, "Score API" and "Re-rank API".
VLLM_RERANK = {"id": str, "model": str, "usage": TOKENS, "results": [RANKED_OBJECT]}
VLLM_SCORE = {
    "id": str,
    "object": "list",
    "created": int,
    "model": str,
    "data": [{"index": int, "object": "score", "score": float}],
    "usage": TOKENS,
}
VLLM = [
    *(
        Reference(
            f"vllm{path.replace('/', '-')}",
            path,
            "/vllm",
            {"model": "BAAI/bge-reranker-base", "query": QUERY, "documents": TEXTS},
            VLLM_RERANK,
        )
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    Reference(
        "vllm-content",
        "/v1/rerank",
        "/vllm",
        {
            "model": "BAAI/bge-reranker-base",
            "query": QUERY,
            "documents": [{"content": [{"type": "text", "text": text}]} for text in TEXTS],
        },
        VLLM_RERANK,
    ),
    *(
        Reference(
            f"vllm{path.replace('/', '-')}",
            path,
            "/vllm",
            {
                "model": "BAAI/bge-reranker-v2-m3",
                "encoding_format": "float",
                "text_1": QUERY,
                "text_2": TEXTS,
            },
            VLLM_SCORE,
            kept=True,
        )
        for path in ("/score", "/v1/score")
    ),
    Reference(
        "vllm-score-queries",
        "/score",
        "/vllm",
        {"model": "BAAI/bge-reranker-v2-m3", "queries": [QUERY] * 3, "documents": TEXTS},
        VLLM_SCORE,
        kept=True,
    ),
]

# Weaviate's container: weaviate/reranker-transformers, smoke_tests.py.
WEAVIATE = [
    Reference(
        "weaviate",
        "/rerank",
        "/weaviate",
        {"query": QUERY, "property": TEXTS[0], "documents": TEXTS},
        {"query": QUERY, "scores": [{"document": str, "score": float}], "property": None},
        union={"query": QUERY, "scores": [{"document": str, "score": float}]},
        kept=True,
    ),
]

# Elasticsearch: "Perform reranking inference", elastic.co/docs/api.
ELASTIC = [
    Reference(
        "elastic",
        "/_inference/rerank/my-endpoint",
        "/elastic",
        {"input": TEXTS, "query": QUERY},
        {"rerank": [RANKED]},
        union=None,
    ),
    Reference(
        "elastic-text",
        "/_inference/rerank/my-endpoint?timeout=30s",
        "/elastic",
        {"input": TEXTS, "query": QUERY, "return_documents": True, "top_n": 3},
        {"rerank": [{**RANKED, "text": str}]},
        union=None,
        headers={"Authorization": "ApiKey bm90LWEtcmVhbC1rZXk="},
    ),
]

REFERENCES = [
    *COHERE,
    *JINA,
    *VOYAGE,
    *NIM,
    *MIXEDBREAD,
    *DASHSCOPE,
    *TEI,
    *INFINITY,
    *XINFERENCE,
    *SILICONFLOW,
    *PINECONE,
    *SGLANG,
    *LLAMACPP,
    *VLLM,
    *WEAVIATE,
    *ELASTIC,
]


@pytest.mark.parametrize(
    "reference",
    [reference for reference in REFERENCES if reference.union is not None],
    ids=lambda reference: reference.name,
)
def test_a_reference_is_answered_at_its_own_path(client: TestClient, reference: Reference) -> None:
    answer = ask(client, reference, reference.path)

    holds(answer, reference.shape if reference.union == "same" else reference.union)
    ranks(client, answer, reference)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_a_reference_is_answered_under_its_prefix(client: TestClient, reference: Reference) -> None:
    answer = ask(client, reference, reference.prefix + reference.path)

    holds(answer, reference.shape)
    ranks(client, answer, reference)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_a_model_that_nobody_serves_is_echoed(client: TestClient, reference: Reference) -> None:
    answer = ask(client, reference, reference.prefix + reference.path)

    if isinstance(answer, dict) and "model" in answer and "model" in reference.body:
        assert answer["model"] == reference.body["model"]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/cohere/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/jina/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/voyage/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/mixedbread/v1/reranking", {"input": TEXTS, "return_input": True}, "input"),
        ("/siliconflow/v1/rerank", {"documents": TEXTS, "return_documents": False}, "document"),
        ("/pinecone/rerank", {"documents": OBJECTS, "return_documents": False}, "document"),
        ("/tei/rerank", {"texts": TEXTS, "return_text": False}, "text"),
    ],
)
def test_documents_come_back_as_asked(
    client: TestClient, path: str, body: dict[str, Any], key: str
) -> None:
    reply = client.post(path, json={"model": "m", "query": QUERY, **body})

    wanted = any(value is True for value in body.values())
    assert reply.status_code == 200, reply.text
    items = items_of(reply.json())
    assert len(items) == len(TEXTS)
    assert all((key in item) == wanted for item in items)


def test_objects_come_back_whole(client: TestClient) -> None:
    """Cohere, Pinecone and Mixedbread promise the other fields of a document, too."""
    wants = {"model": "m", "query": QUERY, "rank_fields": ["text"]}
    cohere = {**wants, "documents": OBJECTS, "return_documents": True}
    echoes = [
        ("/cohere/v1/rerank", cohere, "document"),
        ("/pinecone/rerank", cohere, "document"),
        ("/mixedbread/v1/reranking", {**wants, "input": OBJECTS, "return_input": True}, "input"),
    ]

    for path, body, key in echoes:
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        items = items_of(reply.json())
        assert len(items) == len(OBJECTS)
        for item in items:
            assert item[key] == OBJECTS[item["index"]], path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/siliconflow/v1/rerank", {"model": "m", "query": QUERY, "documents": TEXTS[1]}),
        ("/vllm/rerank", {"model": "m", "query": QUERY, "documents": TEXTS[1]}),
        ("/elastic/_inference/rerank/my-endpoint", {"query": QUERY, "input": TEXTS[1]}),
    ],
)
def test_one_document_may_stand_alone(client: TestClient, path: str, body: dict[str, Any]) -> None:
    reply = client.post(path, json=body)

    assert reply.status_code == 200, reply.text
    assert [item["index"] for item in items_of(reply.json())] == [0]


def test_llamacpp_answers_teis_words_with_a_bare_list(client: TestClient) -> None:
    reply = client.post("/llamacpp/rerank", json={"query": QUERY, "texts": TEXTS, "top_n": 2})

    assert reply.status_code == 200, reply.text
    holds(reply.json(), [{"index": int, "score": float}])
    assert len(reply.json()) == 2


@pytest.mark.parametrize(
    ("number", "path", "body"),
    [
        (2, "/v1/rerank", {"documents": TEXTS, "top_n": 2}),
        (2, "/voyage/v1/rerank", {"documents": TEXTS, "top_k": 2}),
        (2, "/mixedbread/v1/reranking", {"input": TEXTS, "top_k": 2}),
        (2, "/pinecone/rerank", {"documents": OBJECTS, "top_n": 2}),
        (2, "/sglang/v1/rerank", {"documents": TEXTS, "top_n": 2}),
        (2, "/elastic/_inference/rerank/e", {"input": TEXTS, "top_n": 2}),
        (2, "/elastic/_inference/rerank/e", {"input": TEXTS, "task_settings": {"top_n": 2}}),
        (3, "/cohere/v2/rerank", {"documents": TEXTS, "top_n": 30}),
        (3, "/jina/v1/rerank", {"documents": TEXTS, "top_n": None}),
        (3, "/voyage/v1/rerank", {"documents": TEXTS, "top_k": 30}),
    ],
)
def test_as_many_as_wanted(
    client: TestClient, number: int, path: str, body: dict[str, Any]
) -> None:
    reply = client.post(path, json={"model": "m", "query": QUERY, **body})

    assert reply.status_code == 200, reply.text
    assert len(items_of(reply.json())) == number


def test_weaviates_container_scores_a_property_without_documents(client: TestClient) -> None:
    body = {"query": QUERY, "property": TEXTS[1]}

    answer = client.post("/weaviate/rerank", json=body).json()

    holds(answer, {"query": QUERY, "property": TEXTS[1], "score": float})
    assert answer["score"] == pytest.approx(truth(client)[1])


@pytest.mark.parametrize("prefix", ["", "/weaviate"])
def test_weaviates_container_is_live_and_ready_without_content(
    client: TestClient, prefix: str
) -> None:
    for name in ("live", "ready"):
        reply = client.get(f"{prefix}/.well-known/{name}")
        assert reply.status_code == 204
        assert reply.content == b""
    assert isinstance(client.get(f"{prefix}/meta").json(), dict)


@pytest.mark.parametrize("prefix", ["", "/tei"])
def test_teis_info_lists_what_its_reference_requires(client: TestClient, prefix: str) -> None:
    answer = client.get(f"{prefix}/info").json()

    holds(
        answer,
        {
            "model_id": str,
            "model_dtype": str,
            "model_type": {"reranker": {"id2label": dict, "label2id": dict}},
            "max_concurrent_requests": int,
            "max_input_length": int,
            "max_batch_tokens": int,
            "max_client_batch_size": int,
            "auto_truncate": bool,
            "tokenization_workers": int,
            "version": str,
        },
    )
    assert list(answer["model_type"]) == ["reranker"]


@pytest.mark.parametrize("path", ["/tei/health", "/tei/ping", "/ping"])
def test_teis_probes_answer(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_tei_counts_in_headers(client: TestClient) -> None:
    headers = client.post("/tei/rerank", json={"query": QUERY, "texts": TEXTS}).headers

    assert int(headers["x-compute-tokens"]) > 0
    assert int(headers["x-compute-characters"]) > 0
    assert "x-compute-type" in headers
    assert int(headers["x-total-time"]) >= 0


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/nim/v1/models", "/vllm/v1/models"])
def test_models_are_listed_as_nim_and_vllm_list_them(client: TestClient, path: str) -> None:
    holds(client.get(path).json(), {"object": "list", "data": [{"id": str}]})


@pytest.mark.parametrize("path", ["/nim/v1/health/ready", "/nim/v1/health/live"])
def test_nims_probes_answer(client: TestClient, path: str) -> None:
    reply = client.get(path)

    assert reply.status_code == 200
    holds(
        reply.json(),
        {"object": "health.response", "message": str, "status": path.rsplit("/", 1)[1]},
    )


@pytest.mark.parametrize("prefix", ["", "/xinference"])
def test_xinference_describes_its_model(client: TestClient, prefix: str) -> None:
    model = client.get(f"{prefix}/v1/models/builtin").json()
    auth = client.get(f"{prefix}/v1/cluster/auth").json()

    assert model["model_type"] == "rerank"
    assert isinstance(auth["auth"], bool)


# What each vendor's errors hold. Where a reference and a client disagree on a status,
# the client wins: 400 and never 422.
OPENAI_ERROR = {"error": {"message": str, "type": str}}
ERRORS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "cohere": ("/cohere/v2/rerank", {"documents": TEXTS}, {"id": str, "message": str}),
    "jina": ("/jina/v1/rerank", {"documents": TEXTS}, {"detail": str}),
    "voyage": ("/voyage/v1/rerank", {"documents": TEXTS}, {"detail": str}),
    "nim": (
        "/nim/v1/ranking",
        {"passages": [{"text": TEXTS[0]}]},
        {"object": "error", "message": str, "type": str},
    ),
    "mixedbread": ("/mixedbread/v1/reranking", {"input": TEXTS}, {"detail": str}),
    "dashscope": (
        "/dashscope/api/v1/services/rerank/text-rerank/text-rerank",
        {"input": {"documents": TEXTS}},
        {"code": "InvalidParameter", "message": str, "request_id": str},
    ),
    "dashscope-compatible": (
        "/dashscope/compatible-api/v1/reranks",
        {"documents": TEXTS},
        {"error": {"message": str, "type": str}},
    ),
    "tei": ("/tei/rerank", {"texts": TEXTS}, {"error": str, "error_type": "Validation"}),
    "infinity": ("/infinity/rerank", {"documents": TEXTS}, OPENAI_ERROR),
    "xinference": ("/xinference/v1/rerank", {"documents": TEXTS}, {"detail": str}),
    "siliconflow": (
        "/siliconflow/v1/rerank",
        {"documents": TEXTS},
        {"code": int, "message": str, "data": None},
    ),
    "pinecone": (
        "/pinecone/rerank",
        {"documents": OBJECTS},
        {"error": {"code": "INVALID_ARGUMENT", "message": str}, "status": 400},
    ),
    "sglang": (
        "/sglang/v1/rerank",
        {"documents": TEXTS},
        {"object": "error", "message": str, "type": str, "code": 400},
    ),
    "llamacpp": (
        "/llamacpp/v1/rerank",
        {"documents": TEXTS},
        {"error": {"code": 400, "message": str, "type": "invalid_request_error"}},
    ),
    "vllm": (
        "/vllm/v1/rerank",
        {"documents": TEXTS},
        {"error": {"message": str, "type": str, "code": 400}},
    ),
    "weaviate": ("/weaviate/rerank", {"documents": TEXTS, "property": ""}, {"error": str}),
    "elastic": (
        "/elastic/_inference/rerank/my-endpoint",
        {"input": TEXTS},
        {"error": {"type": str, "reason": str, "root_cause": list}, "status": 400},
    ),
}


@pytest.mark.parametrize("vendor", ERRORS)
def test_a_refusal_has_the_vendors_envelope(client: TestClient, vendor: str) -> None:
    path, body, shape = ERRORS[vendor]

    reply = client.post(path, json={"model": "m", **body})

    assert reply.status_code == 400
    holds(reply.json(), shape)
    assert "query" in reply.text


def ask(client: TestClient, reference: Reference, path: str) -> Any:
    reply = client.post(path, json=reference.body, headers={**BEARER, **reference.headers})
    assert reply.status_code == 200, reply.text
    return reply.json()


def holds(value: Any, shape: Any, where: str = "answer") -> None:
    """Whether a JSON value has everything that a shape lists, each of the right type."""
    match shape:
        case Maybe():
            if value is not None:
                holds(value, shape.shape, where)
        case dict():
            assert isinstance(value, dict), f"{where} is {value!r}, not an object"
            for name, inner in shape.items():
                if name in value or not isinstance(inner, Maybe):
                    assert name in value, f"{where} has no {name}: {sorted(value)}"
                    holds(value[name], inner, f"{where}.{name}")
        case [inner]:
            assert isinstance(value, list), f"{where} is {value!r}, not an array"
            assert value, f"{where} is empty"
            for place, item in enumerate(value):
                holds(item, inner, f"{where}[{place}]")
        case type():
            assert type(value) is shape, f"{where} is {value!r}, not {shape.__name__}"
        case _:
            assert value == shape, f"{where} is {value!r}, not {shape!r}"


def ranks(client: TestClient, answer: Any, reference: Reference) -> None:
    """Whether an answer says of each text what our own words say of it."""
    expected = truth(client, logits=reference.logits, instruction=instruction(reference.body))
    items = items_of(answer)
    found = {item.get("index", place): score_of(item) for place, item in enumerate(items)}

    assert found == pytest.approx(expected)
    if reference.kept:
        assert list(found) == [0, 1, 2]
    else:
        assert list(found.values()) == sorted(found.values(), reverse=True)


def items_of(answer: Any) -> list[dict[str, Any]]:
    """The ranking in an answer, wherever the vendor keeps it."""
    if isinstance(answer, dict):
        answer = answer.get("output", answer)
        names = ("results", "data", "rankings", "rerank", "scores")
        answer = next(answer[name] for name in names if name in answer)
    return cast(list[dict[str, Any]], answer)


def score_of(item: Mapping[str, Any]) -> float:
    names = ("relevance_score", "score", "logit")
    return float(next(item[name] for name in names if name in item))


def instruction(body: Mapping[str, Any]) -> str | None:
    options = {**body, **body.get("parameters", {})}
    return options.get("instruction") or options.get("instruct")


def truth(
    client: TestClient, *, logits: bool = False, instruction: str | None = None
) -> dict[int, float]:
    """What our own manner says of the three texts, by index."""
    body = {"query": QUERY, "documents": TEXTS, "raw_scores": logits, "instruction": instruction}
    results = client.post("/v1/rerank", json=body).json()["results"]
    return {result["index"]: result["relevance_score"] for result in results}
