"""Hosted APIs: Cohere, Jina, Voyage, NVIDIA, Mixedbread, DashScope, SiliconFlow, Pinecone."""

from __future__ import annotations

from references.base import OBJECTS, QUERY, RANKED, RANKED_OBJECT, TEXTS, TOKENS, Maybe, Reference

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
        unprefixed=None,
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
    # The SDK's default: the model may be left out.
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
        # SiliconFlow's newer answers count tokens in `meta`, as rankd's answer does.
        unprefixed={"id": str, "results": [RANKED_OBJECT], "meta": {"tokens": dict}},
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
        unprefixed={"id": str, "results": [RANKED_OBJECT], "meta": {"tokens": dict}},
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
        unprefixed=None,
        headers={"Api-Key": "not-a-real-key", "X-Pinecone-Api-Version": "2026-07"},
    ),
]
