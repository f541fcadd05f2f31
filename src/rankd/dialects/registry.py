"""The list of dialects. A new one is added here and nowhere else."""

from __future__ import annotations

from fastapi import APIRouter

from rankd.dialects import (
    bedrock,
    cohere,
    dashscope,
    deepinfra,
    elastic,
    google,
    infinity,
    jina,
    llamacpp,
    mixedbread,
    nim,
    ollama,
    openai,
    openrouter,
    pinecone,
    sglang,
    siliconflow,
    tei,
    tutorials,
    vllm,
    voyage,
    weaviate,
    xinference,
    zeroentropy,
)
from rankd.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (
    openai.dialect,
    cohere.v1,
    cohere.v2,
    jina.dialect,
    vllm.dialect,
    tei.dialect,
    voyage.dialect,
    nim.dialect,
    mixedbread.dialect,
    dashscope.native,
    dashscope.compatible,
    weaviate.dialect,
    infinity.dialect,
    xinference.dialect,
    siliconflow.dialect,
    pinecone.dialect,
    sglang.dialect,
    llamacpp.dialect,
    elastic.dialect,
    deepinfra.dialect,
    zeroentropy.dialect,
    bedrock.dialect,
    google.dialect,
    ollama.dialect,
    openrouter.dialect,
    tutorials.simple,
    tutorials.plain,
)


def get_routers() -> list[APIRouter]:
    """GET routes of all dialects, such as their health checks; first those under prefixes."""
    routers = [dialect.prefix_router for dialect in DIALECTS]
    routers += [dialect.get_router for dialect in DIALECTS]
    return [router for router in routers if router is not None]
