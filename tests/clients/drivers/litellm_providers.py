"""The providers of LiteLLM whose base URL it lets you choose."""

from __future__ import annotations

from dataclasses import dataclass

MODEL = "qwen3-reranker"


@dataclass(frozen=True)
class Provider:
    """How one provider is spelled.

    Attributes:
        base: what follows the origin in `api_base`.
        path: where the request arrives.
        documents: whether the answer can hold the documents.
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
