"""How the fields of each dialect become a `RankRequest`."""

from __future__ import annotations

from typing import Any

import pytest

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
from rankd.dialects.json_io import validate
from rankd.dialects.request import RequestBody
from rankd.dialects.resolved import RequestContext
from rankd.types import RankRequest

DOCUMENTS = {"query": "q", "documents": ["a", "b"]}
TEXTS = {"query": "q", "texts": ["a", "b"]}
PASSAGES = {"query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]}
INPUT = {"query": "q", "input": ["a", "b"]}
NESTED = {"input": DOCUMENTS}

CONTEXT = RequestContext(deadline=12.5)

# A body, and the fields of its RankRequest that differ from the defaults.
REQUESTS: list[tuple[type[RequestBody], dict[str, Any], dict[str, Any]]] = [
    (openai.OpenAIRerankRequest, DOCUMENTS, {}),
    (openai.OpenAIRerankRequest, DOCUMENTS | {"max_tokens_per_doc": 7}, {"max_document_tokens": 7}),
    (openai.OpenAIRerankRequest, DOCUMENTS | {"max_tokens_per_doc": 0}, {}),
    (
        openai.OpenAIRerankRequest,
        DOCUMENTS | {"max_chunks_per_doc": 3, "overlap_tokens": 5},
        {"max_chunks": 3, "overlap": 5},
    ),
    (
        openai.OpenAIRerankRequest,
        DOCUMENTS | {"truncation": "chunk", "truncation_side": "left", "return_details": True},
        {"truncation": "chunk", "side": "left", "details": True},
    ),
    (openai.OpenAIRerankRequest, DOCUMENTS | {"truncation": False}, {"truncation": "refuse"}),
    (
        openai.OpenAIRerankRequest,
        DOCUMENTS | {"chat_template_kwargs": {"instruction": "i"}},
        {"instruction": "i"},
    ),
    (
        openai.OpenAIRerankRequest,
        DOCUMENTS | {"kwargs": '{"instruction": "i"}'},
        {"instruction": "i"},
    ),
    (cohere.V1Request, DOCUMENTS, {"max_chunks": 10}),
    (cohere.V1Request, DOCUMENTS | {"max_chunks_per_doc": 2}, {"max_chunks": 2}),
    (cohere.V2Request, DOCUMENTS, {"max_document_tokens": 4096}),
    (cohere.V2Request, DOCUMENTS | {"max_tokens_per_doc": 9}, {"max_document_tokens": 9}),
    (jina.JinaRequest, DOCUMENTS, {}),
    (jina.JinaRequest, DOCUMENTS | {"max_doc_length": 9}, {"max_document_tokens": 9}),
    (jina.JinaRequest, DOCUMENTS | {"truncation": "chunk"}, {"truncation": "chunk"}),
    (jina.JinaRequest, DOCUMENTS | {"truncation": False}, {"truncation": "refuse"}),
    (vllm.VllmRerankRequest, DOCUMENTS | {"max_tokens_per_doc": 9}, {"max_document_tokens": 9}),
    (
        vllm.VllmRerankRequest,
        DOCUMENTS | {"chat_template_kwargs": {"instruction": "i"}},
        {"instruction": "i"},
    ),
    (tei.TeiRequest, TEXTS, {}),
    (tei.TeiRequest, TEXTS | {"truncate": False}, {"truncation": "refuse"}),
    (tei.TeiRequest, TEXTS | {"truncate": True}, {"truncation": "cut"}),
    (tei.TeiRequest, TEXTS | {"truncation_direction": "Left"}, {"side": "left"}),
    (voyage.VoyageRequest, DOCUMENTS | {"truncation": True}, {"truncation": "cut"}),
    (voyage.VoyageRequest, DOCUMENTS | {"truncation": False}, {"truncation": "refuse"}),
    (nim.NimRequest, PASSAGES, {}),
    (nim.NimRequest, PASSAGES | {"truncate": "NONE"}, {"truncation": "refuse"}),
    (nim.NimRequest, PASSAGES | {"truncate": "END"}, {"truncation": "cut", "side": "right"}),
    (nim.NimRequest, PASSAGES | {"truncate": "START"}, {"truncation": "cut", "side": "left"}),
    (mixedbread.MixedbreadRequest, INPUT, {}),
    (dashscope.NativeRequest, NESTED, {}),
    (dashscope.NativeRequest, NESTED | {"parameters": {"instruct": "i"}}, {"instruction": "i"}),
    (dashscope.CompatibleRequest, DOCUMENTS, {}),
    (weaviate.WeaviateRequest, DOCUMENTS | {"property": ""}, {}),
    (weaviate.WeaviateRequest, {"query": "q", "property": "p"}, {"documents": ("p",)}),
    (infinity.InfinityRequest, DOCUMENTS, {}),
    (xinference.XinferenceRequest, DOCUMENTS, {}),
    (xinference.XinferenceRequest, DOCUMENTS | {"max_chunks_per_doc": 4}, {"max_chunks": 4}),
    (
        xinference.XinferenceRequest,
        DOCUMENTS | {"kwargs": '{"instruction": "i"}'},
        {"instruction": "i"},
    ),
    (siliconflow.SiliconFlowRequest, DOCUMENTS, {"max_chunks": 1024}),
    (
        siliconflow.SiliconFlowRequest,
        DOCUMENTS | {"max_chunks_per_doc": 5, "overlap_tokens": 6},
        {"max_chunks": 5, "overlap": 6},
    ),
    (pinecone.PineconeRequest, DOCUMENTS, {}),
    (
        pinecone.PineconeRequest,
        DOCUMENTS | {"parameters": {"truncate": "NONE"}},
        {"truncation": "refuse"},
    ),
    (sglang.SGLangRequest, DOCUMENTS, {}),
    (llamacpp.LlamaCppRequest, DOCUMENTS, {}),
    (elastic.ElasticRequest, INPUT, {}),
    (tutorials.SimpleRequest, DOCUMENTS, {}),
    (tutorials.PlainRequest, DOCUMENTS, {}),
]


@pytest.mark.parametrize(("model", "body", "differs"), REQUESTS)
def test_a_body_becomes_this_rank_request(
    model: type[RequestBody], body: dict[str, Any], differs: dict[str, Any]
) -> None:
    expected = {"query": "q", "documents": ("a", "b")} | differs

    assert validate(model, body).resolve(RequestContext()).rank == RankRequest(**expected)


@pytest.mark.parametrize("model", dict.fromkeys(model for model, _, _ in REQUESTS))
def test_every_dialect_passes_on_the_shared_fields(model: type[RequestBody]) -> None:
    body = next(body for other, body, _ in REQUESTS if other is model)

    for name in ("instruction", "instruct", "task"):
        request = validate(model, body | {"priority": 7, name: "i"}).resolve(CONTEXT).rank
        assert (request.priority, request.instruction, request.deadline) == (7, "i", 12.5)


def test_score_and_batch_requests_pass_on_the_shared_fields() -> None:
    shared = {"priority": 7, "instruction": "i"}
    scores = validate(vllm.VllmScoreRequest, {"text_1": "q", "text_2": "a", **shared})
    batch = validate(tutorials.SimpleBatchRequest, {"queries": ["q"], "documents": ["a"], **shared})

    for request in (scores.resolve(CONTEXT).rank, batch.resolve(CONTEXT).rank):
        assert (request.priority, request.instruction, request.deadline) == (7, "i", 12.5)


@pytest.mark.parametrize(
    ("model", "body", "limit", "documents"),
    [
        (elastic.ElasticRequest, INPUT, None, False),
        (
            elastic.ElasticRequest,
            INPUT | {"task_settings": {"top_n": 1, "return_documents": True}},
            1,
            True,
        ),
        (
            elastic.ElasticRequest,
            INPUT | {"top_n": 2, "return_documents": False, "task_settings": {"top_n": 1}},
            2,
            False,
        ),
        (mixedbread.MixedbreadRequest, INPUT | {"top_n": 1}, 1, False),
        (mixedbread.MixedbreadRequest, INPUT | {"top_k": -1, "return_input": True}, None, True),
        (nim.NimRequest, PASSAGES | {"top_n": 1}, 1, False),
        (voyage.VoyageRequest, DOCUMENTS | {"top_n": 1, "top_k": 1}, 1, False),
        (dashscope.NativeRequest, NESTED | {"parameters": {"top_n": 1}}, 1, False),
        (tei.TeiRequest, TEXTS | {"top_n": 1, "return_text": "true"}, 1, True),
    ],
)
def test_the_limit_of_results_and_whether_they_hold_documents(
    model: type[RequestBody], body: dict[str, Any], limit: int | None, documents: bool
) -> None:
    answer = validate(model, body).resolve(RequestContext()).answer

    assert (answer.top_n, answer.return_documents) == (limit, documents)
