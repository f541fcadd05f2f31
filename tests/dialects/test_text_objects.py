"""Every dialect reads every object that a vendor documents as text, and refuses everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from rankd.dialects.text_objects import text_of

QUERY = "Who repairs bicycles in Utrecht?"
TEXT = "Anna repairs bicycles in her shop in Utrecht."
OTHER = "Ferries to Texel leave from Den Helder."
URL = "https://example.com/bicycle.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


class Case(NamedTuple):
    """A path, its frame around query and documents, and how its errors name the two."""

    path: str
    query: str
    documents: str

    def body(self, query: Any, documents: Any) -> dict[str, Any]:
        if self.query.startswith("input."):
            return {"input": {"query": query, "documents": documents}}
        if self.query == "queries[0]":
            return {"queries": [query], self.documents: documents}
        return {self.query: query, self.documents: documents}


CASES = [
    *(
        Case(path, "query", "documents")
        for path in (
            "/v1/rerank",
            "/rerank",
            "/v2/rerank",
            "/openai/v1/rerank",
            "/cohere/v1/rerank",
            "/cohere/v2/rerank",
            "/jina/v1/rerank",
            "/vllm/rerank",
            "/vllm/v2/rerank",
            "/vllm/invocations",
            "/voyage/v1/rerank",
            "/weaviate/rerank",
            "/infinity/rerank",
            "/xinference/v1/rerank",
            "/siliconflow/v1/rerank",
            "/pinecone/rerank",
            "/sglang/v1/rerank",
            "/llamacpp/v1/rerank",
            "/simple/rerank",
            "/plain/rerank",
            "/compatible-api/v1/reranks",
            "/zeroentropy/v1/rerank",
            "/v1/models/rerank",
            "/api/rerank",
            "/openrouter/v1/rerank",
        )
    ),
    Case("/v1/inference/m", "query", "documents"),
    Case("/v1/inference/m", "queries[0]", "documents"),
    Case("/rerank", "queries[0]", "sources"),
    Case("/bedrock/v1/rerank", "queries[0]", "sources"),
    Case("/v1/projects/p/locations/global/rankingConfigs/c:rank", "query", "records"),
    Case("/rerank", "query", "texts"),
    Case("/tei/rerank", "query", "texts"),
    Case("/v1/ranking", "query", "passages"),
    Case("/v1/reranking", "query", "input"),
    Case("/_inference/rerank/e", "query", "input"),
    Case("/dashscope/rerank", "input.query", "input.documents"),
    Case("/simple/batch_rerank", "queries[0]", "documents"),
    Case("/v1/score", "text_1", "text_2"),
    Case("/v1/score", "queries", "documents"),
    Case("/vllm/score", "queries", "items"),
    Case("/score", "data_1", "data_2"),
]


def understood(text: str) -> Iterator[Any]:
    """One text in each shape that is documented somewhere."""
    yield {"text": text}
    yield {"text": text, "id": "7", "type": "article", "image": None}  # Cohere, Pinecone
    yield {"type": "text", "text": text}  # OpenAI's block
    yield {"type": "input_text", "text": text}
    yield {"type": "text", "format": "text", "value": text}  # Elastic
    yield {"type": "text", "value": text}
    yield {"content": text}
    yield {"role": "user", "content": text}
    yield {"content": [{"type": "text", "text": text}]}  # vLLM
    yield {"content": [{"text": text}]}
    yield {"content": {"type": "text", "text": text}}
    yield {"content": {"type": "text", "format": "text", "value": text}}  # Elastic
    yield {"content": [{"type": "text", "format": "text", "value": text}]}


REFUSED: list[Any] = [
    DATA,
    {"Image": "https://example.com/a.png"},
    {"parts": [{"inline_data": {"mime_type": "image/png", "data": "iVBORw0KGgo="}}]},
    {"image": URL},  # Jina, DashScope
    {"image": DATA},
    {"image": "iVBORw0KGgoAAAANSUhEUg=="},
    {"image": "iVBORw0KGgoAAAAN\nSUhEUg==\n"},
    {"image": {"url": URL}},
    {"images": [URL]},
    {"multi_images": [URL, URL]},  # DashScope
    {"image_url": URL},
    {"image_url": {"url": DATA}},
    {"image_base64": "iVBORw0KGgo="},  # Voyage
    {"text": TEXT, "image": URL},  # NIM, OpenRouter
    {"text": "", "image": DATA},
    {"content": TEXT, "image": URL},
    {"title": "A bicycle", "price": 3, "image": URL},
    {"title": "A bicycle", "thumbnail": DATA},
    {"video": "https://example.com/new+video.mp4"},  # DashScope
    {"video": ["https://example.com/1.png", "https://example.com/2.png"]},
    {"video_url": {"url": "https://example.com/v.mp4"}},
    {"audio": "UklGRg=="},
    {"input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"pdf": "https://example.com/a.pdf"},
    {"file": {"file_data": "JVBERi0="}},
    {"inline_data": {"mime_type": "image/png", "data": "iVBORw0KGgo="}},
    {"type": "image", "format": "base64", "value": DATA},  # Elastic
    {"type": "image", "format": "url", "value": URL},
    {"type": "IMAGE", "value": DATA},
    {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"},
    {"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgo="}},
    {"type": "video", "url": "https://example.com/v.mp4"},
    {"type": "image_url", "image_url": {"url": URL}},  # vLLM
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"content": [{"type": "image_url", "image_url": {"url": URL}}]},
    {"content": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": URL}]},
    {"content": [{"type": "text", "text": TEXT, "image": URL}]},
    {"content": [{"image": URL}]},
    {"content": [{"type": "image_embeds", "image_embeds": "AAAA"}]},
    {"content": {"type": "image", "format": "base64", "value": DATA}},
]


def scores(client: TestClient, case: Case, query: Any, documents: Any) -> list[float]:
    reply = client.post(case.path, json=case.body(query, documents))
    assert reply.status_code == 200, (case, query, documents, reply.text)
    found = sorted(_numbers(reply.json()))
    assert found
    return found


SCORE_FIELDS = ("relevance_score", "relevanceScore", "score", "logit")


def _numbers(value: Any) -> Iterator[float]:
    """The scores in an answer, in whichever fields the dialect has them."""
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in SCORE_FIELDS and isinstance(item, float):
                yield item
            elif name == "scores" and isinstance(item, list) and isinstance(item[0], float):
                yield from item
            else:
                yield from _numbers(item)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_object_has_the_score_of_its_text(client: TestClient, case: Case) -> None:
    plain = scores(client, case, QUERY, [TEXT, OTHER])

    for document, query in zip(understood(TEXT), understood(QUERY), strict=True):
        assert scores(client, case, QUERY, [document, OTHER]) == plain, document
        assert scores(client, case, query, [TEXT, OTHER]) == plain, query


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_no_text_is_refused_with_its_index(client: TestClient, case: Case) -> None:
    for thing in REFUSED:
        as_document = client.post(case.path, json=case.body(QUERY, [TEXT, thing]))
        as_query = client.post(case.path, json=case.body(thing, [TEXT, OTHER]))

        for reply, name in ((as_document, f"{case.documents}[1]"), (as_query, case.query)):
            assert reply.status_code == 400, (thing, reply.text)
            message = reply.json()["message"]
            assert message.startswith(name + " "), message
            assert "this model reads text only" in message, message


def test_a_part_of_a_batch_is_refused_in_its_own_dialect(client: TestClient) -> None:
    requests = [{"query": "q", "texts": ["a", {"image": URL}]}, {"query": "q", "documents": ["a"]}]

    refused, answered = client.post("/batch_rerank", json={"requests": requests}).json()["results"]

    assert (refused["status_code"], answered["status_code"]) == (400, 200)
    assert refused["body"]["error"] == (
        "texts[1] holds a picture in `image`; this model reads text only"
    )


@pytest.mark.parametrize(
    "record",
    [
        {"title": "A bicycle", "image": "a red bicycle in front of a shop"},
        {"title": "A bicycle", "image": None, "video": "", "audio": False, "images": []},
        {"title": "How to mend a tyre", "type": "video", "url": "https://example.com/v"},
        {"type": "file", "path": "a/b.py", "size": 7},
        {"file": "a/b.py", "line": 7},
        {"pdf": "report.pdf", "page": 7},
        {"name": "colour", "type": "string", "value": "red"},
        {"name": "label", "type": "text", "value": "red"},
        {"type": "text"},
        {"value": 7},
        {"attachments": [{"type": "image", "url": URL}]},
    ],
)
def test_a_record_is_read_with_all_its_fields(record: dict[str, Any]) -> None:
    text = text_of(record)

    for name in record:
        assert f"{name}:" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"text": "a transcript", "type": "video"}, "a transcript"),
        ({"text": "a transcript", "type": "video", "url": URL}, "a transcript"),
        ({"text": "a caption", "file": "a.png"}, "a caption"),
        ({"text": "a review", "image": "a red bicycle"}, "a review"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),  # SGLang
    ],
)
def test_a_text_is_read_beside_fields_that_describe_it(value: Any, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"type": "integer", "value": 5}, "is of type 'integer'; send text as a string or"),
        ({"type": "text", "format": "base64", "value": "aGk="}, "has its text in the format"),
        ({"type": "text", "base64": "aGk="}, "has its text in the format"),
        ({"type": "text", "value": 5}, "must hold its text as a string in `value`, not a number"),
        ([{"type": "image_url", "image_url": URL}], "has a block of type 'image_url'; this model"),
        ([{"type": "text"}], "must hold its text in blocks of type 'text'"),
        ({"content": ["a", "b"]}, "must hold its text in blocks of type 'text'"),
    ],
)
def test_a_typed_object_without_readable_text_is_refused(value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint[:10]) as wrong:
        text_of(value)

    assert str(wrong.value).startswith(complaint)


def test_only_fields_that_are_chosen_count() -> None:
    product = {"text": "t", "title": "A bicycle", "image": URL, "type": "image", "thumbnail": DATA}

    assert text_of(product, ["title"]) == "A bicycle"
    assert text_of(product, ["title", "text"]) == "title: A bicycle\ntext: t"
    assert text_of({"content": [{"type": "text", "text": "t"}]}, ["content"]) == "t"
    for fields in (["image"], ["title", "image"], ["thumbnail"], ["title", "thumbnail"]):
        with pytest.raises(ValueError, match="; this model reads text only"):
            text_of(product, fields)


def test_rank_fields_of_a_product_leave_its_image_out(client: TestClient) -> None:
    products = [{"title": TEXT, "image": URL}, {"title": OTHER, "image": URL}]
    plain = scores(client, CASES[0], QUERY, [TEXT, OTHER])

    for case in (CASES[0], Case("/mixedbread/v1/reranking", "query", "input")):
        body = {**case.body(QUERY, products), "rank_fields": ["title"]}
        assert sorted(_numbers(client.post(case.path, json=body).json())) == plain


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        # Elastic and vLLM document one object for an array of one.
        if (case.query, case.documents) == ("query", "documents")
        or case.path.endswith("/score")
        or case.path.startswith("/_inference/")
        if not case.path.startswith(("/cohere/v2", "/weaviate", "/simple"))
    ],
    ids=str,
)
def test_one_object_is_one_document(client: TestClient, case: Case) -> None:
    plain = scores(client, case, QUERY, [TEXT])

    for document in understood(TEXT):
        assert scores(client, case, QUERY, document) == plain


@pytest.mark.parametrize("documents", [{"0": "a", "1": "b"}, {}, {"title": "a"}])
def test_an_object_that_may_be_an_array_is_refused(client: TestClient, documents: Any) -> None:
    reply = client.post("/v1/rerank", json={"query": "q", "documents": documents})

    assert reply.status_code == 400
    assert reply.json()["message"] == "documents must be an array, not an object"


@pytest.mark.parametrize("text", ['["a", "b"]', ' [{"text": "a"}]\n'])
def test_an_array_as_json_text_is_refused(client: TestClient, text: str) -> None:
    for case in (
        CASES[0],
        Case("/vllm/rerank", "query", "documents"),
        Case("/v1/score", "text_1", "text_2"),
    ):
        reply = client.post(case.path, json=case.body(QUERY, text))
        assert reply.status_code == 400
        assert reply.json()["message"].startswith(
            f"{case.documents} is a string that holds a JSON array: send the array itself"
        )
        assert scores(client, case, QUERY, [text])


@pytest.mark.parametrize("text", ["[1] a footnote", "[sic]", "[]", "[1, 2]", "[", '["a"'])
def test_one_string_with_brackets_is_one_document(client: TestClient, text: str) -> None:
    assert len(scores(client, CASES[0], QUERY, text)) == 1
