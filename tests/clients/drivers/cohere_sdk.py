"""Cohere's SDK: versions 1 and 2 of its API, sequential and concurrent requests."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import cohere
from cohere.core.api_error import ApiError

from harness import (
    BEIJING,
    BEST,
    DOCUMENTS,
    GRAVITY,
    MODEL,
    QUERY,
    SENTENCE,
    Server,
    case,
    eq,
    main,
    ranked,
    refused,
)

V1, V2 = "Cohere v1", "Cohere v2"
SEVEN = version("cohere").startswith("7.")


def v2(server: Server) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="any", base_url=server.url)


def v1(server: Server) -> cohere.Client:
    return cohere.Client(api_key="any", base_url=server.url)


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    results = answer.results
    ranked(
        [result.index for result in results], [result.relevance_score for result in results], count
    )


@case("cohere.ClientV2", "cohere", V2)
def ranks(server: Server) -> None:
    check(v2(server).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case("cohere.ClientV2", "cohere", V2)
def every_field(server: Server) -> None:
    more = {"relevant_spans": {"mode": "disabled"}} if SEVEN else {}
    answer = v2(server).rerank(
        model=MODEL,
        query=QUERY,
        documents=DOCUMENTS,
        top_n=2,
        max_tokens_per_doc=4096,
        priority=1,
        **more,
    )

    check(answer, 2)
    assert answer.id
    eq(answer.meta.billed_units.search_units, 1)
    assert answer.meta.tokens.input_tokens > 0


@case("cohere.ClientV2", "cohere", V2)
def relevant_spans(server: Server) -> None:
    if not SEVEN:
        return
    document = f"Lions hunt. 🙂 {BEIJING} Bread is baked."
    spans = cohere.RerankRelevantSpans(mode="enabled", threshold=0, max_spans=2)
    for prefix in ("", "/cohere"):
        client = cohere.ClientV2(api_key="any", base_url=f"{server.url}{prefix}")
        [result] = client.rerank(
            model=MODEL, query=QUERY, documents=[document], relevant_spans=spans
        ).results
        first, second = result.relevant_spans
        assert first.score >= second.score
        eq(document[first.start : first.end].removeprefix("🙂 "), BEIJING)


@case("cohere.Client", "cohere", V1)
def lists_models(server: Server) -> None:
    client = cohere.Client(api_key="any", base_url=f"{server.url}/cohere")

    [model] = client.models.list().models
    eq(model.endpoints, ["rerank"])
    eq(client.models.get(MODEL).name, MODEL)


@case("cohere.ClientV2", "cohere", V2)
def explicit_nulls(server: Server) -> None:
    check(
        v2(server).rerank(
            model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=None, max_tokens_per_doc=None
        )
    )


@case("cohere.ClientV2", "cohere", V2)
def top_n_above_the_count(server: Server) -> None:
    check(v2(server).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=50))


@case("cohere.ClientV2", "cohere", V2)
def scores_do_not_change_with_top_n(server: Server) -> None:
    every = v2(server).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS).results
    result = v2(server).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=1).results

    eq(result[0].relevance_score, every[0].relevance_score)


@case("cohere.ClientV2", "cohere", V2)
def text_of_any_language(server: Server) -> None:
    documents = ["Brot ist aus Mehl. 🥖", "中国的首都是北京。", "\u0000\u2028 naïve"]

    answer = v2(server).rerank(model=MODEL, query="中国的首都是哪里?", documents=documents)

    eq(sorted(result.index for result in answer.results), [0, 1, 2])


@case("cohere.ClientV2", "cohere", V2)
def bad_request(server: Server) -> None:
    with (
        server.watched() as wire,
        refused(cohere.BadRequestError, SENTENCE) as caught,
    ):
        cohere.ClientV2(api_key="any", base_url=wire.url).rerank(
            model=MODEL, query="", documents=DOCUMENTS
        )
    eq(caught[0].body["message"], SENTENCE)
    eq(wire.requests, ["POST /v2/rerank"])


@case("cohere.ClientV2", "cohere", V2)
def no_documents(server: Server) -> None:
    with refused(cohere.BadRequestError, "documents"):
        v2(server).rerank(model=MODEL, query=QUERY, documents=[])


if SEVEN:

    @case("cohere.ClientV2", "cohere", V2)
    def as_many_as_cohere_takes(server: Server) -> None:
        """The limit of 1,000 documents, as many as Haystack and Weaviate send in one request."""
        documents = [f"Page {number} is about bread." for number in range(999)] + [BEIJING]

        best = v2(server).rerank(model=MODEL, query=QUERY, documents=documents).results
        eq((len(best), best[0].index), (1000, 999))
        with refused(ApiError, "1,000") as caught:
            v2(server).rerank(model=MODEL, query=QUERY, documents=[*documents, GRAVITY])
        eq(caught[0].status_code, 413)


@case("cohere.ClientV2", "cohere", V2)
def right_key(server: Server) -> None:
    client = cohere.ClientV2(api_key=server.key, base_url=server.keyed)

    check(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case("cohere.ClientV2", "cohere", V2)
def wrong_key(server: Server) -> None:
    with (
        server.watched(keyed=True) as wire,
        refused(cohere.UnauthorizedError, "invalid api token"),
    ):
        cohere.ClientV2(api_key="wrong", base_url=wire.url).rerank(
            model=MODEL, query=QUERY, documents=DOCUMENTS
        )
    eq(wire.requests, ["POST /v2/rerank"])


@case("cohere.ClientV2", "cohere", V2)
def under_its_prefix(server: Server) -> None:
    client = cohere.ClientV2(api_key="any", base_url=f"{server.url}/cohere")

    check(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case("cohere.AsyncClientV2", "cohere", V2)
async def ranks_many_at_once(server: Server) -> None:
    async with cohere.AsyncClientV2(api_key="any", base_url=server.url) as client:
        answers = await asyncio.gather(
            *(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS) for _ in range(8))
        )
    for answer in answers:
        check(answer)


@case("cohere.AsyncClientV2", "cohere", V2)
async def bad_request_async(server: Server) -> None:
    with refused(cohere.BadRequestError, SENTENCE):
        async with cohere.AsyncClientV2(api_key="any", base_url=server.url) as client:
            await client.rerank(model=MODEL, query="", documents=DOCUMENTS)


@case("cohere.Client", "cohere", V1)
def ranks_v1(server: Server) -> None:
    check(v1(server).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case("cohere.Client", "cohere", V1)
def every_field_v1(server: Server) -> None:
    answer = v1(server).rerank(
        model=MODEL,
        query=QUERY,
        documents=[{"text": text} for text in DOCUMENTS],
        top_n=2,
        rank_fields=["text"],
        return_documents=True,
        max_chunks_per_doc=10,
    )

    check(answer, 2)
    eq(answer.results[0].document.text, BEIJING)
    eq(answer.results[0].index, BEST)


@case("cohere.Client", "cohere", V1)
def documents_with_fields(server: Server) -> None:
    documents = [{"title": "A fact", "text": text} for text in DOCUMENTS]

    answer = v1(server).rerank(
        model=MODEL, query=QUERY, documents=documents, rank_fields=["title", "text"]
    )

    eq(answer.results[0].index, BEST)


@case("cohere.Client", "cohere", V1)
def without_documents(server: Server) -> None:
    answer = v1(server).rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, return_documents=False
    )

    check(answer)
    eq([result.document for result in answer.results], [None, None, None])


@case("cohere.Client", "cohere", V1)
def bad_request_v1(server: Server) -> None:
    with refused(ApiError, SENTENCE) as caught:
        v1(server).rerank(model=MODEL, query="", documents=DOCUMENTS)
    eq(caught[0].status_code, 400)


@case("cohere.Client", "cohere", V1)
def right_key_v1(server: Server) -> None:
    client = cohere.Client(api_key=server.key, base_url=server.keyed)

    check(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case("cohere.AsyncClient", "cohere", V1)
async def ranks_v1_async(server: Server) -> None:
    async with cohere.AsyncClient(api_key="any", base_url=server.url) as client:
        check(
            await client.rerank(
                model=MODEL, query=QUERY, documents=DOCUMENTS, return_documents=True
            )
        )


if __name__ == "__main__":
    main()
