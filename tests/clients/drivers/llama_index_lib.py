"""LlamaIndex's postprocessors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cohere
import dashscope
import mixedbread
import voyageai
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.dashscope_rerank import DashScopeRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.mixedbreadai_rerank import MixedbreadAIRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank
from llama_index.postprocessor.xinference_rerank import XinferenceRerank

from harness import (
    BEIJING,
    DOCUMENTS,
    MODEL,
    QUERY,
    SENTENCE,
    Server,
    case,
    each,
    eq,
    main,
    ranked,
    refused,
)

COUNT = len(DOCUMENTS)
Make = Callable[..., Any]


def run(postprocessor: Any, query: str = QUERY) -> list[NodeWithScore]:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in DOCUMENTS]
    return postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(query))


def check(nodes: list[NodeWithScore], count: int = COUNT) -> None:
    ranked(
        [DOCUMENTS.index(node.node.text) for node in nodes], [node.score for node in nodes], count
    )


def check_logits(nodes: list[NodeWithScore], count: int = COUNT) -> None:
    """As `check`, for logits: 0 corresponds to a probability of 0.5."""
    scores = [node.score for node in nodes]
    eq(nodes[0].node.text, BEIJING)
    eq(len(nodes), count)
    eq(scores, sorted(scores, reverse=True))
    assert scores[0] > 0 > scores[1], scores


def by_cohere(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    return CohereRerank(model=MODEL, base_url=url, api_key=key, top_n=top_n)


def by_jina(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    return JinaRerank(model=MODEL, base_url=f"{url}/v1", api_key=key, top_n=top_n)


def by_tei(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    # `auth_token` is the whole header value.
    return TextEmbeddingInference(base_url=url, auth_token=f"Bearer {key}", top_n=top_n)


def by_xinference(url: str, key: str = "", top_n: int = COUNT) -> Any:
    # It has no field for a key, so the key is the password in the URL.
    url = url.replace("://", f"://key:{key}@") if key else url
    return XinferenceRerank(model=MODEL, base_url=url, top_n=top_n)


def by_siliconflow(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    return SiliconFlowRerank(model=MODEL, base_url=f"{url}/v1/rerank", api_key=key, top_n=top_n)


def by_voyage(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    ranker = VoyageAIRerank(model=MODEL, api_key=key, top_n=top_n)
    # It has no field for a URL, so its client is replaced.
    ranker._client = voyageai.Client(api_key=key, base_url=f"{url}/voyage/v1")
    return ranker


def by_dashscope(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    dashscope.base_http_api_url = f"{url}/api/v1"
    return DashScopeRerank(model="qwen3-rerank", api_key=key, top_n=top_n)


def by_mixedbread(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    # It has no field for a URL; the Mixedbread SDK reads this variable.
    os.environ["MIXEDBREAD_BASE_URL"] = url
    return MixedbreadAIRerank(model=MODEL, api_key=key, top_n=top_n)


def by_nvidia(url: str, key: str = "any", top_n: int = COUNT) -> Any:
    return NVIDIARerank(model="builtin", base_url=f"{url}/v1", api_key=key, top_n=top_n)


def cases(
    make: Make,
    path: str,
    error: type[BaseException] | tuple[type[BaseException], ...],
    sentence: str = SENTENCE,
    judge: Callable[..., None] = check,
) -> dict[str, Callable[[Server], Any]]:
    def ranks(server: Server) -> None:
        with server.watched() as wire:
            judge(run(make(wire.url)))
        eq(wire.requests[-1], f"POST {path}")

    def top_n(server: Server) -> None:
        judge(run(make(server.url, top_n=2)), 2)

    def top_n_above_the_count(server: Server) -> None:
        judge(run(make(server.url, top_n=50)))

    def bad_request(server: Server) -> None:
        with server.watched() as wire, refused(error, sentence):
            run(make(wire.url), " ")
        eq(len([line for line in wire.requests if line.startswith("POST")]), 1, "requests")

    def right_key(server: Server) -> None:
        judge(run(make(server.keyed, server.key)))

    functions = [ranks, top_n, top_n_above_the_count, bad_request, right_key]
    return {run.__name__: run for run in functions}


def add(name: str, package: str, dialect: str, **functions: Any) -> None:
    each(f"llama-index {name}", f"llama-index-postprocessor-{package}-rerank", dialect, **functions)


add("CohereRerank", "cohere", "Cohere v2", **cases(by_cohere, "/v2/rerank", cohere.BadRequestError))
add("JinaRerank", "jinaai", "Jina", **cases(by_jina, "/v1/rerank", RuntimeError))
# It ignores the status and expects an array.
add(
    "TextEmbeddingInference",
    "tei",
    "TEI",
    **cases(by_tei, "/rerank", (AssertionError, TypeError), ""),
)
add("XinferenceRerank", "xinference", "Xinference", **cases(by_xinference, "/v1/rerank", Exception))
add(
    "SiliconFlowRerank",
    "siliconflow",
    "SiliconFlow",
    **cases(by_siliconflow, "/v1/rerank", RuntimeError),
)
add(
    "VoyageAIRerank",
    "voyageai",
    "Voyage",
    **cases(by_voyage, "/voyage/v1/rerank", voyageai.error.InvalidRequestError),
)
# It ignores the status; the output is None.
add(
    "DashScopeRerank",
    "dashscope",
    "DashScope",
    **cases(
        by_dashscope,
        "/api/v1/services/rerank/text-rerank/text-rerank",
        (AttributeError, TypeError),
        "",
    ),
)
add(
    "MixedbreadAIRerank",
    "mixedbreadai",
    "Mixedbread",
    **cases(by_mixedbread, "/v1/reranking", mixedbread.BadRequestError),
)
# It shows the status and the URL, not the body.
add(
    "NVIDIARerank",
    "nvidia",
    "NVIDIA",
    **cases(by_nvidia, "/v1/ranking", Exception, "400", check_logits),
)


@case("llama-index NVIDIARerank", "llama-index-postprocessor-nvidia-rerank", "NVIDIA")
def finds_the_model_by_itself(server: Server) -> None:
    check_logits(run(NVIDIARerank(base_url=f"{server.url}/v1", api_key="any", top_n=COUNT)))


@case("llama-index CohereRerank", "llama-index-postprocessor-cohere-rerank", "Cohere v2")
def wrong_key(server: Server) -> None:
    with server.watched(keyed=True) as wire, refused(cohere.UnauthorizedError, "invalid api token"):
        run(by_cohere(wire.url, "wrong"))
    eq(len(wire.requests), 1, "requests")


if __name__ == "__main__":
    main()
