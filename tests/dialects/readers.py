"""What applications make of an answer, as strictly as their own code does.

A reader gets the exchanges of one file of `wire/` and returns what its application
then believes: the score of each document. It fails where the application would: where
Go refuses `67.0` for an int, where Java refuses `1` for a Double, where a schema wants
a string. The file's `source` says which code it follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Scores = dict[int, float]


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    Attributes:
        asked: the request's body, None when it has none.
    """

    asked: Any
    status: int
    text: str

    @property
    def answer(self) -> Any:
        return json.loads(self.text)

    @property
    def query(self) -> str:
        return question(self.asked)[0]

    @property
    def documents(self) -> list[str]:
        return question(self.asked)[1]


Reader = Callable[[Sequence[Exchange]], Scores]
Complaint = Callable[[Exchange], str]

READERS: dict[str, Reader] = {}
# What an application shows its user of a refusal.
COMPLAINTS: dict[str, Complaint] = {}


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Registers a reader for files of `wire/`, by their stems."""

    def register(reader: Reader) -> Reader:
        for name in names:
            assert name not in READERS, name
            READERS[name] = reader
        return reader

    return register


def complains(*names: str) -> Callable[[Complaint], Complaint]:
    def register(complaint: Complaint) -> Complaint:
        for name in names:
            assert name not in COMPLAINTS, name
            COMPLAINTS[name] = complaint
        return complaint

    return register


def question(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The query and the documents of a request, in whatever words it names them."""
    if isinstance(body.get("input"), dict):
        body = body["input"]
    for name in ("documents", "texts", "passages", "input"):
        if name in body:
            return _text(body["query"]), [_text(item) for item in body[name]]
    raise AssertionError(f"no documents in {sorted(body)}")


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case {"text": str(text)}:
            return text
        case {"content": [{"type": "text", "text": str(text)}]}:
            return text
    raise AssertionError(f"no text in {value!r}")


def shown(text: str) -> str:
    """A text as an answer can repeat it: no encoding has half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- How languages read JSON ---------------------------------------------------------


def go(value: Any, shape: Any) -> Any:
    """`json.Unmarshal` into structs: null and absent are zero, a wrong type is an error."""
    match shape:
        case dict():
            assert value is None or isinstance(value, dict), f"not a struct: {value!r}"
            return {name: go((value or {}).get(name), inner) for name, inner in shape.items()}
        case [inner]:
            assert value is None or isinstance(value, list), f"not a slice: {value!r}"
            return [go(item, inner) for item in value or []]
    if shape is Any:
        return value
    if value is None:
        return shape()
    if shape is float:
        assert type(value) in (int, float), f"not a float64: {value!r}"
    else:
        assert type(value) is shape, f"not a Go {shape.__name__}: {value!r}"
    return value


def json_smart(text: str) -> Any:
    """As json-smart reads numbers, in json-path: longer literals become BigDecimal."""
    return json.loads(
        text, parse_float=lambda digits: float(digits) if len(digits) <= 18 else Decimal(digits)
    )


def number(value: Any) -> float:
    """A JSON number, as JavaScript and Python take it for granted."""
    assert type(value) in (int, float), f"not a number: {value!r}"
    return float(value)


def place(value: Any) -> int:
    assert type(value) is int, f"not an index: {value!r}"
    return value


# --- What many applications share ----------------------------------------------------


def pairs(items: Iterable[Mapping[str, Any]], score: str = "relevance_score") -> Scores:
    """`index` and a score of each item; an index that comes twice is lost to somebody."""
    found: Scores = {}
    for item in items:
        index = place(item["index"])
        assert index not in found, f"index {index} came twice"
        found[index] = number(item[score])
    return found


def in_order(scores: Scores) -> Scores:
    """For those who keep the order that the answer has."""
    assert list(scores.values()) == sorted(scores.values(), reverse=True), "not best first"
    return scores


def every_document(exchange: Exchange, scores: Scores) -> Scores:
    """For those who sort by index and then use positions."""
    assert sorted(scores) == list(range(len(exchange.documents))), "a document is missing"
    return scores


def ok(exchange: Exchange) -> Exchange:
    assert exchange.status == 200, exchange.text
    return exchange


# --- Dify ----------------------------------------------------------------------------


@reads(
    "dify-openai_api_compatible",
    "dify-openai_api_compatible-keyless",
    "dify-openai_api_compatible-multimodal",
)
def dify_openai(exchanges: Sequence[Exchange]) -> Scores:
    """Wrong names give index 0 and score 0.0, without an error."""
    last = ok(exchanges[-1])
    found: Scores = {}
    for item in last.answer.get("results", []):
        index = item.get("index", 0)
        if index < len(last.documents):
            found[index] = item.get("relevance_score", 0.0)
    return found


@reads("dify-localai", "dify-gpustack")
def dify_localai(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    results = last.answer["results"]
    for result in results:
        if "document" in result:
            assert result["document"]["text"] == last.documents[result["index"]]
    return pairs(results)


@reads("dify-jina", "dify-jina-m0")
def dify_jina(exchanges: Sequence[Exchange]) -> Scores:
    return in_order(pairs(ok(exchanges[-1]).answer["results"]))


@reads("dify-siliconflow", "dify-cohere")
def dify_documents(exchanges: Sequence[Exchange]) -> Scores:
    """The text that is shown is the answer's."""
    last = ok(exchanges[-1])
    for result in last.answer["results"]:
        assert result["document"]["text"] == last.documents[result["index"]]
    return in_order(pairs(last.answer["results"]))


@reads("dify-huggingface_tei")
def dify_tei(exchanges: Sequence[Exchange]) -> Scores:
    info, last = (ok(exchange) for exchange in exchanges)
    assert next(iter(info.answer["model_type"].keys())) == "reranker"
    assert place(info.answer["max_input_length"]) > 0
    for result in last.answer:
        assert result["text"] == last.documents[result["index"]]
    return in_order(pairs(last.answer, "score"))


@reads("dify-xinference")
def dify_xinference(exchanges: Sequence[Exchange]) -> Scores:
    last = xinference_client(exchanges)
    for result in last.answer["results"]:
        document = result["document"]
        text = document if isinstance(document, str) else document["text"]
        assert text == last.documents[result["index"]]
    return pairs(last.answer["results"])


def xinference_client(exchanges: Sequence[Exchange]) -> Exchange:
    """Asks whether a key is needed, then what the model is; any other type has no rerank."""
    auth, model, last = exchanges
    assert auth.status == 404 or isinstance(auth.answer["auth"], bool)
    assert ok(model).answer["model_type"] == "rerank"
    return ok(last)


@complains("dify-xinference", "maxkb-xinference")
def xinference_detail(exchange: Exchange) -> str:
    return str(exchange.answer["detail"])


@reads("dify-voyage")
def dify_voyage(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    for item in last.answer["data"]:
        assert item["document"] == last.documents[item["index"]]
    return in_order(pairs(last.answer["data"]))


# --- RAGFlow -------------------------------------------------------------------------


@reads(
    "ragflow-jina",
    "ragflow-openai-api-compatible",
    "ragflow-gpustack",
    "ragflow-localai",
    "ragflow-siliconflow",
    "ragflow-cohere",
)
def ragflow(exchanges: Sequence[Exchange]) -> Scores:
    return as_it_is(_ranks(exchanges[-1], ok(exchanges[-1]).answer["results"], "relevance_score"))


@reads("ragflow-xinference")
def ragflow_xinference(exchanges: Sequence[Exchange]) -> Scores:
    """Its forks count the tokens of `meta` as well."""
    answer = ok(exchanges[-1]).answer
    tokens = answer["meta"]["tokens"]
    assert place(tokens["input_tokens"]) + place(tokens["output_tokens"]) > 0
    return as_it_is(_ranks(exchanges[-1], answer["results"], "relevance_score"))


@reads("ragflow-tongyi")
def ragflow_tongyi(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    assert place(answer["usage"]["total_tokens"]) > 0
    return as_it_is(_ranks(exchanges[-1], answer["output"]["results"], "relevance_score"))


@reads("ragflow-huggingface")
def ragflow_huggingface(exchanges: Sequence[Exchange]) -> Scores:
    return as_it_is(_ranks(exchanges[-1], ok(exchanges[-1]).answer, "score"))


@reads("ragflow-nvidia")
def ragflow_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    return _ranks(exchanges[-1], ok(exchanges[-1]).answer["rankings"], "logit")


def _ranks(exchange: Exchange, items: Iterable[Mapping[str, Any]], score: str) -> Scores:
    """An array of zeros, filled by index: what is missing stays 0."""
    ranks = [0.0] * len(exchange.documents)
    for item in items:
        ranks[item["index"]] = item[score]
    return dict(enumerate(ranks))


def as_it_is(scores: Scores) -> Scores:
    """What lies in [0, 1] is not rescaled."""
    assert all(0 <= score <= 1 for score in scores.values()), scores
    return scores


GO_RANKING = {
    "id": str,
    "model": str,
    "results": [{"index": int, "relevance_score": float, "document": {"text": str}}],
    "usage": {"prompt_tokens": int, "total_tokens": int},
}


@reads("ragflow-go-vllm", "ragflow-go-xinference")
def ragflow_go(exchanges: Sequence[Exchange]) -> Scores:
    return _in_range(exchanges[-1], go(ok(exchanges[-1]).answer, GO_RANKING)["results"])


@reads("ragflow-go-jina")
def ragflow_go_jina(exchanges: Sequence[Exchange]) -> Scores:
    """Checks its connection by listing models, without a key; a missing name is a panic."""
    models, last = (ok(exchange) for exchange in exchanges)
    for model in models.answer["data"]:
        assert isinstance(model["name"], str)
    return _in_range(last, go(last.answer, GO_RANKING)["results"])


@reads("ragflow-go-cohere")
def ragflow_go_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {**GO_RANKING, "meta": {"billed_units": {"search_units": int}}}
    return _in_range(exchanges[-1], go(ok(exchanges[-1]).answer, shape)["results"])


@reads("ragflow-go-nvidia")
def ragflow_go_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    parsed = go(ok(exchanges[-1]).answer, {"rankings": [{"index": int, "logit": float}]})
    return _in_range(exchanges[-1], parsed["rankings"], "logit")


def _in_range(
    exchange: Exchange, items: Sequence[Mapping[str, Any]], score: str = "relevance_score"
) -> Scores:
    found = pairs(items, score)
    assert all(0 <= index < len(exchange.documents) for index in found)
    return found


# --- Chat front ends, agents and gateways --------------------------------------------


@reads(
    "open-webui-external",
    "onyx-litellm",
    "continue-cohere",
    "continue-vllm",
    "continue-siliconflow",
)
def by_position(exchanges: Sequence[Exchange]) -> Scores:
    """Sorts by index and takes the scores as those of its own documents, in turn."""
    results = sorted(ok(exchanges[-1]).answer["results"], key=lambda result: result["index"])
    scores = [number(result["relevance_score"]) for result in results]
    assert len(scores) == len(exchanges[-1].documents), "a document is missing"
    return dict(enumerate(scores))


@reads("fastgpt")
def fastgpt(exchanges: Sequence[Exchange]) -> Scores:
    """Empty results are an error; of chunks of one document the first one counts."""
    answer = ok(exchanges[-1]).answer
    assert answer["results"]
    assert place(answer["meta"]["tokens"]["input_tokens"]) > 0
    return in_order(pairs(answer["results"]))


@reads("n8n-openai", "cherry-studio-default")
def results_by_index(exchanges: Sequence[Exchange]) -> Scores:
    return pairs(ok(exchanges[-1]).answer["results"])


@reads("mteb")
def mteb(exchanges: Sequence[Exchange]) -> Scores:
    """Does not begin unless the models can be listed, without a key."""
    models, last = exchanges
    assert models.status == 200
    return pairs(ok(last).answer["results"])


@reads("librechat-jina")
def librechat(exchanges: Sequence[Exchange]) -> Scores:
    """Whatever goes wrong here is a default ranking, without an error."""
    last = ok(exchanges[-1])
    assert len(last.answer["results"]) > 0
    for result in last.answer["results"]:
        document = result.get("document")
        text = document["text"] if isinstance(document, dict) else document
        assert text == shown(last.documents[result["index"]])
    return in_order(pairs(last.answer["results"]))


@complains("librechat-jina")
def librechat_message(exchange: Exchange) -> str:
    """It looks for "2048" in it."""
    assert isinstance(exchange.answer["message"], str)
    return str(exchange.answer["message"])


@reads("cherry-studio-voyageai")
def cherry_voyage(exchanges: Sequence[Exchange]) -> Scores:
    return pairs(ok(exchanges[-1]).answer["data"])


@reads("cherry-studio-tei", "r2r-huggingface")
def bare_list(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    assert isinstance(answer, list)
    return in_order(pairs(answer, "score"))


@reads("trieve-tei")
def trieve(exchanges: Sequence[Exchange]) -> Scores:
    """A `Vec<ScorePair>`; neither field has a default."""
    answer = ok(exchanges[-1]).answer
    assert isinstance(answer, list)
    return _in_range(exchanges[-1], answer, "score")


@reads("kotaemon-tei")
def kotaemon(exchanges: Sequence[Exchange]) -> Scores:
    """Never looks at the status."""
    return pairs(exchanges[-1].answer, "score")


@reads("maxkb-vllm", "maxkb-siliconcloud")
def maxkb(exchanges: Sequence[Exchange]) -> Scores:
    """Shows the answer's text, which vLLM sends unasked."""
    last = ok(exchanges[-1])
    for result in last.answer["results"]:
        assert result.get("document", {}).get("text") == last.documents[result["index"]]
    return in_order(pairs(last.answer["results"]))


@reads("maxkb-xinference")
def maxkb_xinference(exchanges: Sequence[Exchange]) -> Scores:
    return maxkb([xinference_client(exchanges)])


@reads("flowise-azure")
def flowise(exchanges: Sequence[Exchange]) -> Scores:
    return in_order(pairs(ok(exchanges[-1]).answer["results"]))


@reads("weknora-openai")
def weknora(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    for result in answer["results"]:
        assert isinstance(result.get("document"), str | dict | None)
    shape = {
        "id": str,
        "model": str,
        "usage": {"total_tokens": int},
        "results": [{"index": int, "relevance_score": float}],
    }
    return pairs(go(answer, shape)["results"])


@reads("chatwiki-xinference")
def chatwiki(exchanges: Sequence[Exchange]) -> Scores:
    shape = {"id": str, "results": [{"index": int, "relevance_score": float, "document": str}]}
    return pairs(go(ok(exchanges[-1]).answer, shape)["results"])


@reads("new-api-jina")
def new_api(exchanges: Sequence[Exchange]) -> Scores:
    """Without a total it bills an estimate of its own."""
    shape = {
        "results": [{"index": int, "relevance_score": float, "document": Any}],
        "usage": {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int},
    }
    answer = go(ok(exchanges[-1]).answer, shape)
    assert answer["usage"]["total_tokens"] > 0
    return pairs(answer["results"])


@reads("continue-huggingface-tei")
def continue_tei(exchanges: Sequence[Exchange]) -> Scores:
    info, last = (ok(exchange) for exchange in exchanges)
    assert isinstance(info.answer["model_id"], str)
    assert place(info.answer["max_client_batch_size"]) > 0
    ranked = sorted(last.answer, key=lambda item: item["index"])
    return every_document(last, dict(enumerate(number(item["score"]) for item in ranked)))


@reads("continue-voyage")
def continue_voyage(exchanges: Sequence[Exchange]) -> Scores:
    """A zod schema, which wants the documents that were never asked for."""
    last = ok(exchanges[-1])
    assert last.answer["object"] == "list"
    assert isinstance(last.answer["model"], str)
    number(last.answer["usage"]["total_tokens"])
    for item in last.answer["data"]:
        assert isinstance(item["document"], str)
    return every_document(last, pairs(last.answer["data"]))


# --- Databases -----------------------------------------------------------------------


@reads("milvus-vllm")
def milvus_vllm(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "model": str,
        "usage": {"total_tokens": int},
        "results": [{"index": int, "relevance_score": float}],
    }
    return _by_place(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-tei")
def milvus_tei(exchanges: Sequence[Exchange]) -> Scores:
    parsed = go(ok(exchanges[-1]).answer, [{"index": int, "score": float}])
    return _by_place(exchanges, parsed, "score")


@reads("milvus-cohere")
def milvus_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float}],
        "meta": {
            "api_version": {"version": str, "is_experimental": bool},
            "billed_units": {"search_units": int},
        },
    }
    return _by_place(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-siliconflow")
def milvus_siliconflow(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float}],
        "meta": {
            "billed_units": {
                "input_tokens": int,
                "output_tokens": int,
                "search_units": int,
                "classifications": int,
            },
            "tokens": {"input_tokens": int, "output_tokens": int},
        },
    }
    return _by_place(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-voyageai")
def milvus_voyageai(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "object": str,
        "data": [{"index": int, "relevance_score": float}],
        "model": str,
        "usage": {"total_tokens": int},
    }
    return _by_place(exchanges, go(ok(exchanges[-1]).answer, shape)["data"])


@reads("milvus-sglang")
def milvus_sglang(exchanges: Sequence[Exchange]) -> Scores:
    """Pointers: a missing index or score is an error, not a zero."""
    answer = ok(exchanges[-1]).answer
    parsed = go(answer, [{"index": int, "score": float}])
    assert all(item["index"] is not None and item["score"] is not None for item in answer)
    return _by_place(exchanges, parsed, "score")


def _by_place(
    exchanges: Sequence[Exchange],
    items: Sequence[Mapping[str, Any]],
    score: str = "relevance_score",
) -> Scores:
    """Sorted by index; the scores are then those of its own documents, in turn."""
    ranked = sorted(items, key=lambda item: item["index"])
    assert len(ranked) == len(exchanges[-1].documents), "a document is missing"
    return dict(enumerate(number(item[score]) for item in ranked))


@reads("weaviate-transformers")
def weaviate_transformers(exchanges: Sequence[Exchange]) -> Scores:
    """Does not start unless the server is ready; takes the scores as they come."""
    ready, meta, last = exchanges
    assert 200 <= ready.status <= 299
    assert isinstance(ok(meta).answer, dict)
    answer = go(ok(last).answer, WEAVIATE_RANKING)
    assert [item["document"] for item in answer["scores"]] == last.documents
    return dict(enumerate(item["score"] for item in answer["scores"]))


WEAVIATE_RANKING = {
    "query": str,
    "scores": [{"document": str, "score": float}],
    "property": str,
    "score": float,
    "error": str,
}


@complains("weaviate-transformers")
def weaviate_error(exchange: Exchange) -> str:
    """It decodes the answer before it looks at the status."""
    return str(go(exchange.answer, WEAVIATE_RANKING)["error"])


@reads("weaviate-cohere")
def weaviate_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float, "document": {"text": str}}],
        "meta": {"api_version": {"version": str}},
    }
    return _slots(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("weaviate-voyageai")
def weaviate_voyageai(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "data": [{"index": int, "relevance_score": float, "document": {"text": str}}],
        "usage": {"total_tokens": int},
    }
    return _slots(exchanges, go(ok(exchanges[-1]).answer, shape)["data"])


@complains("weaviate-cohere", "weaviate-voyageai", "elasticsearch-cohere", "astra-data-api-nvidia")
def message(exchange: Exchange) -> str:
    return str(go(exchange.answer, {"message": str})["message"])


@reads("weaviate-nvidia")
def weaviate_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    answer = go(ok(exchanges[-1]).answer, {"rankings": [{"index": int, "logit": float}]})
    return _slots(exchanges, answer["rankings"], "logit")


def _slots(
    exchanges: Sequence[Exchange],
    items: Sequence[Mapping[str, Any]],
    score: str = "relevance_score",
) -> Scores:
    """As many slots as results, filled by index: a higher index is a panic."""
    slots: list[float | None] = [None] * len(items)
    for item in items:
        slots[item["index"]] = item[score]
    assert len(slots) == len(exchanges[-1].documents)
    return {index: score for index, score in enumerate(slots) if score is not None}


@reads("astra-data-api-nvidia")
def astra(exchanges: Sequence[Exchange]) -> Scores:
    """`resp.usage().prompt_tokens()`, without a look at null."""
    answer = ok(exchanges[-1]).answer
    assert place(answer["usage"]["prompt_tokens"]) > 0
    assert place(answer["usage"]["total_tokens"]) > 0
    return pairs(answer["rankings"], "logit")


@reads("opensearch-cohere")
def opensearch(exchanges: Sequence[Exchange]) -> Scores:
    """`(Integer) index`, `(Double) relevance_score`: a cast is not a conversion."""
    results = json_smart(ok(exchanges[-1]).text)["results"]
    assert "index" in results[0]
    assert "relevance_score" in results[0]
    scores: list[float] = [0.0] * len(results)
    for result in results:
        assert type(result["index"]) is int
        assert type(result["relevance_score"]) is float, result["relevance_score"]
        scores[result["index"]] = result["relevance_score"]
    assert len(scores) == len(exchanges[-1].documents)
    return dict(enumerate(scores))


@reads("elasticsearch-cohere")
def elasticsearch_cohere(exchanges: Sequence[Exchange]) -> Scores:
    """Looks for `results` until the first object ends; knows three fields of a result."""
    answer = ok(exchanges[-1]).answer
    for name, value in answer.items():
        if name == "results":
            break
        assert not isinstance(value, dict), f"{name} ends an object before results"
    for result in answer["results"]:
        assert set(result) <= {"index", "relevance_score", "document"}, sorted(result)
        if "document" in result:
            assert isinstance(result["document"]["text"], str)
            assert not any(isinstance(value, dict) for value in result["document"].values())
    return in_order(pairs(answer["results"]))


@reads("elasticsearch-jinaai")
def elasticsearch_jinaai(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    for result in answer["results"]:
        match result.get("document", ""):
            case str() | {"text": str()}:
                pass
            case other:
                raise AssertionError(f"expected an object or string for document, got {other!r}")
    return in_order(pairs(answer["results"]))


@complains("elasticsearch-jinaai")
def jina_detail(exchange: Exchange) -> str:
    assert isinstance(exchange.answer["detail"], str)
    return str(exchange.answer["detail"])


# --- Java libraries ------------------------------------------------------------------


@reads("spring-ai-alibaba-dashscope")
def spring_ai_alibaba(exchanges: Sequence[Exchange]) -> Scores:
    """Records: `Integer`, `Double`, and a document that can only be a map."""
    answer = ok(exchanges[-1]).answer
    for result in answer["output"]["results"]:
        assert isinstance(result.get("document"), dict | None)
    return in_order(pairs(answer["output"]["results"]))


@reads("langchain4j-cohere")
def langchain4j_cohere(exchanges: Sequence[Exchange]) -> Scores:
    """`getMeta().getBilledUnits().getSearchUnits()`, without a look at null."""
    answer = ok(exchanges[-1]).answer
    assert place(answer["meta"]["billed_units"]["search_units"]) > 0
    return by_position(exchanges)


@reads("langchain4j-jina")
def langchain4j_jina(exchanges: Sequence[Exchange]) -> Scores:
    usage = ok(exchanges[-1]).answer["usage"]
    assert place(usage["prompt_tokens"]) <= place(usage["total_tokens"])
    return by_position(exchanges)


@reads("langchain4j-voyage")
def langchain4j_voyage(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    assert place(last.answer["usage"]["total_tokens"]) > 0
    return every_document(last, pairs(last.answer["data"]))
