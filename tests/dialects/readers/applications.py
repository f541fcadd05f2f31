"""Chat front ends, agents and gateways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from readers.base import (
    Exchange,
    Scores,
    best_first,
    by_position,
    complete,
    go,
    indexes_in_range,
    integer,
    number,
    ok,
    reads,
    reads_errors,
    scores_by_index,
    without_lone_surrogates,
    xinference_client,
)

reads(
    "open-webui-external",
    "onyx-litellm",
    "continue-cohere",
    "continue-vllm",
    "continue-siliconflow",
)(by_position)


@reads("fastgpt")
def fastgpt(exchanges: Sequence[Exchange]) -> Scores:
    """Empty results are an error; of several chunks of one document it keeps the first."""
    answer = ok(exchanges[-1]).answer
    assert answer["results"]
    assert integer(answer["meta"]["tokens"]["input_tokens"]) > 0
    return best_first(scores_by_index(answer["results"]))


@reads("n8n-openai", "cherry-studio-default")
def results_by_index(exchanges: Sequence[Exchange]) -> Scores:
    return scores_by_index(ok(exchanges[-1]).answer["results"])


@reads("mteb")
def mteb(exchanges: Sequence[Exchange]) -> Scores:
    """Lists the models first, without a key, and stops if that fails."""
    models, last = exchanges
    assert models.status == 200
    return scores_by_index(ok(last).answer["results"])


@reads("librechat-jina")
def librechat(exchanges: Sequence[Exchange]) -> Scores:
    """Falls back to a default ranking on any mistake, without an error."""
    last = ok(exchanges[-1])
    assert len(last.answer["results"]) > 0
    for result in last.answer["results"]:
        document = result.get("document")
        text = document["text"] if isinstance(document, dict) else document
        assert text == without_lone_surrogates(last.documents[result["index"]])
    return best_first(scores_by_index(last.answer["results"]))


@reads_errors("librechat-jina")
def librechat_message(exchange: Exchange) -> str:
    """Searches the message for "2048", so it must be a string."""
    assert isinstance(exchange.answer["message"], str)
    return str(exchange.answer["message"])


@reads("cherry-studio-voyageai")
def cherry_voyage(exchanges: Sequence[Exchange]) -> Scores:
    return scores_by_index(ok(exchanges[-1]).answer["data"])


@reads("cherry-studio-tei", "r2r-huggingface")
def bare_list(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    assert isinstance(answer, list)
    return best_first(scores_by_index(answer, "score"))


@reads("trieve-tei")
def trieve(exchanges: Sequence[Exchange]) -> Scores:
    """Parses a `Vec<ScorePair>`, whose two fields have no default."""
    answer = ok(exchanges[-1]).answer
    assert isinstance(answer, list)
    return indexes_in_range(exchanges[-1], answer, "score")


@reads("kotaemon-tei")
def kotaemon(exchanges: Sequence[Exchange]) -> Scores:
    """Ignores the status."""
    return scores_by_index(exchanges[-1].answer, "score")


@reads("maxkb-vllm", "maxkb-siliconcloud")
def maxkb(exchanges: Sequence[Exchange]) -> Scores:
    """Shows the text in the answer, which vLLM always sends."""
    last = ok(exchanges[-1])
    for result in last.answer["results"]:
        assert result.get("document", {}).get("text") == last.documents[result["index"]]
    return best_first(scores_by_index(last.answer["results"]))


@reads("maxkb-xinference")
def maxkb_xinference(exchanges: Sequence[Exchange]) -> Scores:
    return maxkb([xinference_client(exchanges)])


@reads("flowise-azure")
def flowise(exchanges: Sequence[Exchange]) -> Scores:
    return best_first(scores_by_index(ok(exchanges[-1]).answer["results"]))


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
    return scores_by_index(go(answer, shape)["results"])


@reads("chatwiki-xinference")
def chatwiki(exchanges: Sequence[Exchange]) -> Scores:
    shape = {"id": str, "results": [{"index": int, "relevance_score": float, "document": str}]}
    return scores_by_index(go(ok(exchanges[-1]).answer, shape)["results"])


@reads("new-api-jina")
def new_api(exchanges: Sequence[Exchange]) -> Scores:
    """Bills `total_tokens`; without it, its own estimate."""
    shape = {
        "results": [{"index": int, "relevance_score": float, "document": Any}],
        "usage": {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int},
    }
    answer = go(ok(exchanges[-1]).answer, shape)
    assert answer["usage"]["total_tokens"] > 0
    return scores_by_index(answer["results"])


@reads("continue-huggingface-tei")
def continue_tei(exchanges: Sequence[Exchange]) -> Scores:
    info, last = (ok(exchange) for exchange in exchanges)
    assert isinstance(info.answer["model_id"], str)
    assert integer(info.answer["max_client_batch_size"]) > 0
    ranked = sorted(last.answer, key=lambda item: item["index"])
    return complete(last, dict(enumerate(number(item["score"]) for item in ranked)))


@reads("continue-voyage")
def continue_voyage(exchanges: Sequence[Exchange]) -> Scores:
    """A zod schema that requires documents, although the request does not ask for them."""
    last = ok(exchanges[-1])
    assert last.answer["object"] == "list"
    assert isinstance(last.answer["model"], str)
    number(last.answer["usage"]["total_tokens"])
    for item in last.answer["data"]:
        assert isinstance(item["document"], str)
    return complete(last, scores_by_index(last.answer["data"]))
