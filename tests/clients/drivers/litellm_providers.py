"""The providers of LiteLLM that have a configurable base URL."""

from __future__ import annotations

from dataclasses import dataclass

MODEL = "qwen3-reranker"


@dataclass(frozen=True)
class Provider:
    """How a request to one provider is addressed.

    Attributes:
        base: the path of `api_base`.
        path: the path of the request that the server gets.
        documents: whether answers can include the documents.
    """

    name: str
    dialect: str
    base: str
    path: str
    documents: bool = True

    @property
    def model(self) -> str:
        return f"{self.name}/{MODEL}"


PROVIDERS = [
    Provider("cohere", "Cohere v2", "", "/v2/rerank"),
    Provider("jina_ai", "Jina", "", "/v1/rerank"),
    Provider("hosted_vllm", "vLLM", "", "/rerank"),
    Provider("infinity", "Infinity", "/infinity", "/infinity/rerank"),
    Provider("huggingface", "TEI", "", "/rerank"),
    Provider("voyage", "Voyage", "/voyage/v1", "/voyage/v1/rerank"),
    Provider("nvidia_nim", "NVIDIA", "", f"/v1/retrieval/{MODEL}/reranking", False),
    Provider("nvidia_nim/ranking", "NVIDIA", "", "/v1/ranking", False),
]
