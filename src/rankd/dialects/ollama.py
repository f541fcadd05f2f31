"""Ollama's rerank API as proposed in ollama/ollama#11389; no release of Ollama has it.

Source: examples/reranking/README.md of that change; ai-sdk-ollama 4.3, which speaks it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.reply import Reply
from rankd.dialects.request import EchoingDocumentsBody, example
from rankd.errors import RankError


class OllamaRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "model": "qwen3-reranker",
            "query": "How tall is Mount Fuji?",
            "documents": [
                "Mount Fuji is Japan's highest mountain.",
                "Tea is made of leaves.",
            ],
            "instruction": "Find the passage that answers the question.",
            "top_n": 1,
        }
    )


class OllamaResult(BaseModel):
    index: int
    document: str | None = Field(None, description="Absent if not requested.")
    relevance_score: float


class OllamaResponse(BaseModel):
    model: str
    results: list[OllamaResult] = Field(description="Most relevant first.")


class Ollama(Dialect):
    name = "ollama"
    about = "Ollama's proposed rerank API."
    Request = OllamaRequest
    response = OllamaResponse
    failure = StringFailure
    paths = ("/api/rerank",)

    def render(self, reply: Reply) -> dict[str, Any]:
        with_documents = reply.answer.return_documents
        return {
            "model": reply.model,
            "results": [
                {
                    "index": result.index,
                    **({"document": result.text} if with_documents else {}),
                    "relevance_score": result.number,
                }
                for result in reply.best
            ],
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return string_error(problem, problem.kind)


dialect = Ollama()
