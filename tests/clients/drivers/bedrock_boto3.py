"""AWS's SDK for Python with Bedrock's operation Rerank."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from harness import BEST, DOCUMENTS, QUERY, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "boto3 bedrock-agent-runtime", "boto3", "Bedrock"
ARN = "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"


def client(url: str, key: str = "any") -> Any:
    """The access key id is the API key; rankd does not check the signature."""
    return boto3.client(
        "bedrock-agent-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="any",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
    )


def text(document: str) -> dict[str, Any]:
    inner = {"type": "TEXT", "textDocument": {"text": document}}
    return {"type": "INLINE", "inlineDocumentSource": inner}


def arguments(query: str = QUERY, **configuration: Any) -> dict[str, Any]:
    return {
        "queries": [{"type": "TEXT", "textQuery": {"text": query}}],
        "sources": list(map(text, DOCUMENTS)),
        "rerankingConfiguration": {
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {
                "modelConfiguration": {"modelArn": ARN},
                **configuration,
            },
        },
    }


def check(answer: dict[str, Any], count: int = len(DOCUMENTS)) -> None:
    results = answer["results"]
    scores = [result["relevanceScore"] for result in results]
    ranked([result["index"] for result in results], scores, count)


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(client(wire.url).rerank(**arguments()))
    eq(wire.requests, ["POST /rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def under_the_prefix(server: Server) -> None:
    with server.watched() as wire:
        check(client(f"{wire.url}/bedrock").rerank(**arguments()))
    eq(wire.requests, ["POST /bedrock/rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    fields = {"instruction": "Find the passage that answers the question."}
    model = {"modelArn": ARN, "additionalModelRequestFields": fields}

    answer = client(server.url).rerank(**arguments(numberOfResults=2, modelConfiguration=model))

    check(answer, 2)


@case(CLIENT, PACKAGE, DIALECT)
def json_documents(server: Server) -> None:
    sources = [
        {
            "type": "INLINE",
            "inlineDocumentSource": {"type": "JSON", "jsonDocument": {"body": document}},
        }
        for document in DOCUMENTS
    ]

    answer = client(server.url).rerank(**{**arguments(), "sources": sources})

    eq(answer["results"][0]["index"], BEST)


@case(CLIENT, PACKAGE, DIALECT)
def paginator(server: Server) -> None:
    pages = client(server.url).get_paginator("rerank").paginate(**arguments())

    [page] = list(pages)

    check(page)


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(ClientError, "must not be empty") as caught:
        client(wire.url).rerank(**arguments(query=" "))
    eq(caught[0].response["Error"]["Code"], "ValidationException")
    eq(caught[0].response["ResponseMetadata"]["HTTPStatusCode"], 400)
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(client(server.keyed, server.key).rerank(**arguments()))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(ClientError, "invalid api token") as caught:
        client(server.keyed, "wrong").rerank(**arguments())
    eq(caught[0].response["Error"]["Code"], "AccessDeniedException")


if __name__ == "__main__":
    main()
