"""Vendors' own API references: the request that each documents, and the fields of its answer."""

from __future__ import annotations

from references.base import OBJECTS, QUERY, TEXTS, Maybe, Reference
from references.hosted import (
    COHERE,
    DASHSCOPE,
    JINA,
    MIXEDBREAD,
    NIM,
    PINECONE,
    SILICONFLOW,
    VOYAGE,
)
from references.servers import ELASTIC, INFINITY, LLAMACPP, SGLANG, TEI, VLLM, WEAVIATE, XINFERENCE

__all__ = ["OBJECTS", "QUERY", "REFERENCES", "TEXTS", "Maybe", "Reference"]

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
