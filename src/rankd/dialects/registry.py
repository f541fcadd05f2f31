"""Every dialect there is."""

from __future__ import annotations

from fastapi import APIRouter

from rankd.dialects import (
    cohere,
    dashscope,
    elastic,
    infinity,
    jina,
    llamacpp,
    mixedbread,
    nim,
    openai,
    pinecone,
    sglang,
    siliconflow,
    tei,
    tutorials,
    vllm,
    voyage,
    weaviate,
    xinference,
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
    tutorials.simple,
    tutorials.plain,
)

# What vendors' clients ask for besides a ranking, by dialect.
BESIDES: dict[str, APIRouter] = {
    tei.dialect.name: tei.router,
    nim.dialect.name: nim.router,
    weaviate.dialect.name: weaviate.router,
    xinference.dialect.name: xinference.router,
}
