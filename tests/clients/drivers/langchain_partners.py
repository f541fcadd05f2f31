"""LangChain's partner packages, as far as they are installed in this environment."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from langchain_core.documents import Document

from harness import DOCUMENTS, MODEL, QUERY, SENTENCE, Server, case, eq, main, ranked, refused


def compress(compressor: Any, query: str = QUERY) -> list[Document]:
    documents = [Document(page_content=text) for text in DOCUMENTS]
    return list(compressor.compress_documents(documents, query))


def check(documents: list[Document], count: int = len(DOCUMENTS)) -> None:
    ranked(
        [DOCUMENTS.index(document.page_content) for document in documents],
        [document.metadata["relevance_score"] for document in documents],
        count,
    )


if find_spec("langchain_cohere"):
    import cohere
    from langchain_cohere import CohereRerank

    def by_cohere(url: str, key: str = "any", **more: Any) -> CohereRerank:
        return CohereRerank(model=MODEL, base_url=url, cohere_api_key=key, **more)

    @case("langchain CohereRerank", "langchain-cohere", "Cohere v2")
    def ranks_with_cohere(server: Server) -> None:
        with server.watched() as wire:
            check(compress(by_cohere(wire.url)))
        eq(wire.requests, ["POST /v2/rerank"])

    @case("langchain CohereRerank", "langchain-cohere", "Cohere v2")
    def top_n_with_cohere(server: Server) -> None:
        check(compress(by_cohere(server.url, top_n=2)), 2)
        check(compress(by_cohere(server.url, top_n=50)))

    @case("langchain CohereRerank", "langchain-cohere", "Cohere v2")
    def bad_request_with_cohere(server: Server) -> None:
        with server.watched() as wire, refused(cohere.BadRequestError, SENTENCE):
            compress(by_cohere(wire.url), "")
        eq(len(wire.requests), 1, "requests")

    @case("langchain CohereRerank", "langchain-cohere", "Cohere v2")
    def keys_with_cohere(server: Server) -> None:
        check(compress(by_cohere(server.keyed, server.key)))
        with refused(cohere.UnauthorizedError, "invalid api token"):
            compress(by_cohere(server.keyed, "wrong"))


if find_spec("langchain_voyageai"):
    import voyageai
    from langchain_voyageai import VoyageAIRerank

    def by_voyage(url: str, key: str = "any", **more: Any) -> VoyageAIRerank:
        return VoyageAIRerank(model=MODEL, base_url=f"{url}/voyage/v1", api_key=key, **more)

    @case("langchain VoyageAIRerank", "langchain-voyageai", "Voyage")
    def ranks_with_voyage(server: Server) -> None:
        with server.watched() as wire:
            check(compress(by_voyage(wire.url)))
        eq(wire.requests, ["POST /voyage/v1/rerank"])

    @case("langchain VoyageAIRerank", "langchain-voyageai", "Voyage")
    def top_k_with_voyage(server: Server) -> None:
        check(compress(by_voyage(server.url, top_k=2)), 2)

    @case("langchain VoyageAIRerank", "langchain-voyageai", "Voyage")
    async def ranks_with_voyage_async(server: Server) -> None:
        documents = [Document(page_content=text) for text in DOCUMENTS]

        check(list(await by_voyage(server.url).acompress_documents(documents, QUERY)))

    @case("langchain VoyageAIRerank", "langchain-voyageai", "Voyage")
    def bad_request_with_voyage(server: Server) -> None:
        with refused(voyageai.error.InvalidRequestError, SENTENCE):
            compress(by_voyage(server.url), "")

    @case("langchain VoyageAIRerank", "langchain-voyageai", "Voyage")
    def keys_with_voyage(server: Server) -> None:
        check(compress(by_voyage(server.keyed, server.key)))
        with refused(voyageai.error.AuthenticationError, "invalid api token"):
            compress(by_voyage(server.keyed, "wrong"))


if find_spec("langchain_nvidia_ai_endpoints"):
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    def by_nvidia(url: str, key: str = "any", **more: Any) -> NVIDIARerank:
        return NVIDIARerank(
            base_url=f"{url}/v1", api_key=key, usage_telemetry_enabled=False, **more
        )

    def check_logits(documents: list[Document], count: int = len(DOCUMENTS)) -> None:
        """As `check`, for logits: 0 corresponds to a probability of 0.5."""
        scores = [document.metadata["relevance_score"] for document in documents]
        eq(documents[0].page_content, DOCUMENTS[1])
        eq(len(documents), count)
        eq(scores, sorted(scores, reverse=True))
        assert scores[0] > 0 > scores[1], scores

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    def ranks_with_nvidia(server: Server) -> None:
        check_logits(compress(by_nvidia(server.url, model="builtin")))

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    def finds_the_model_by_itself(server: Server) -> None:
        with server.watched() as wire:
            check_logits(compress(by_nvidia(wire.url)))
        eq(wire.requests[-1], "POST /v1/ranking")

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    def every_field_with_nvidia(server: Server) -> None:
        check_logits(compress(by_nvidia(server.url, model="builtin", top_n=2, truncate="END")), 2)

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    async def ranks_with_nvidia_async(server: Server) -> None:
        documents = [Document(page_content=text) for text in DOCUMENTS]

        check_logits(list(await by_nvidia(server.url).acompress_documents(documents, QUERY)))

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    def bad_request_with_nvidia(server: Server) -> None:
        with refused(Exception, SENTENCE):
            compress(by_nvidia(server.url, model="builtin"), " ")

    @case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", "NVIDIA")
    def keys_with_nvidia(server: Server) -> None:
        check_logits(compress(by_nvidia(server.keyed, server.key, model="builtin")))
        with refused(Exception, "invalid api token"):
            compress(by_nvidia(server.keyed, "wrong", model="builtin"))


if __name__ == "__main__":
    main()
