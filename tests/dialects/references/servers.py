"""Servers: TEI, Infinity, Xinference, SGLang, llama.cpp, vLLM, Weaviate, Elasticsearch."""

from __future__ import annotations

from references.base import QUERY, RANKED, RANKED_OBJECT, TEXTS, TOKENS, Reference

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
        # vLLM's clients require an object for the same request.
        unprefixed={**INFINITY_SHAPE, "results": [RANKED_OBJECT]},
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

# SGLang: docs.sglang.io, rerank models; serving_rerank.py.
SGLANG = [
    Reference(
        "sglang",
        "/v1/rerank",
        "/sglang",
        {"model": "Qwen/Qwen3-Reranker-8B", "query": QUERY, "documents": TEXTS, "top_n": 3},
        [{"score": float, "document": str, "index": int, "meta_info": dict}],
        unprefixed=None,
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
        unprefixed={**LLAMACPP_SHAPE, "object": str},
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
            request_order=True,
        )
        for path in ("/score", "/v1/score")
    ),
    Reference(
        "vllm-score-queries",
        "/score",
        "/vllm",
        {"model": "BAAI/bge-reranker-v2-m3", "queries": [QUERY] * 3, "documents": TEXTS},
        VLLM_SCORE,
        request_order=True,
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
        unprefixed={"query": QUERY, "scores": [{"document": str, "score": float}]},
        request_order=True,
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
        unprefixed=None,
    ),
    Reference(
        "elastic-text",
        "/_inference/rerank/my-endpoint?timeout=30s",
        "/elastic",
        {"input": TEXTS, "query": QUERY, "return_documents": True, "top_n": 3},
        {"rerank": [{**RANKED, "text": str}]},
        unprefixed=None,
        headers={"Authorization": "ApiKey bm90LWEtcmVhbC1rZXk="},
    ),
]
