"""AWS Bedrock's rerank operation (bedrock-agent-runtime): `queries` and `sources`.

Its path is `/rerank`, so the body tells it from others.
Source: botocore 1.44, bedrock-agent-runtime 2023-07-26.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.fields import LIST, Count, NoTexts, query_of, text_at
from rankd.dialects.json_values import type_name
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, SentFields, Spellings, example
from rankd.dialects.text_objects import record_text, text_of
from rankd.errors import InvalidRequest, RankError
from rankd.types import TruncationPolicy


class ModelRequestFields(BaseModel):
    """Fields of the model; AWS passes them on unchecked. Here they are some of rankd's."""

    model_config = ConfigDict(extra="allow")

    instruction: str | None = Field(None, description="Another name of `instruction`.")
    preset: str | None = Field(None, description="Another name of `preset`.")
    max_tokens_per_doc: Count | None = Field(
        None, ge=1, description="Maximum tokens per document. Default: all that fit."
    )


class ModelConfiguration(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    modelArn: str | None = Field(
        None, description="What follows its last slash is the model's name. Default: `model`."
    )
    additionalModelRequestFields: ModelRequestFields | None = Field(
        None, description="`instruction`, `preset` and `max_tokens_per_doc`. Default: empty."
    )


class BedrockConfiguration(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    modelConfiguration: ModelConfiguration | None = Field(
        None, description="The model and its fields. Default: the served model."
    )
    numberOfResults: Count | None = Field(
        None, ge=1, description="Maximum number of results. Default: all."
    )


class RerankingConfiguration(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["BEDROCK_RERANKING_MODEL"] | None = Field(
        None, description="Default: BEDROCK_RERANKING_MODEL, the only value."
    )
    bedrockRerankingConfiguration: BedrockConfiguration | None = Field(
        None, description="Default: empty."
    )


_QUERY_EXAMPLE = {"type": "TEXT", "textQuery": {"text": "When was the lighthouse built?"}}


def _source_example(text: str) -> dict[str, Any]:
    document = {"type": "TEXT", "textDocument": {"text": text}}
    return {"type": "INLINE", "inlineDocumentSource": document}


class BedrockRequest(RequestBody):
    model_config = example(
        {
            "queries": [_QUERY_EXAMPLE],
            "sources": [
                _source_example("The lighthouse was built in 1874."),
                _source_example("Sea otters hold hands when they sleep."),
            ],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "modelConfiguration": {
                        "modelArn": "arn:aws:bedrock:eu-west-1::foundation-model/qwen3"
                    },
                    "numberOfResults": 1,
                },
            },
        }
    )

    sent_names: ClassVar = {"query": "queries", "documents": "sources"}

    queries: list[Any] = Field(
        description='The query, as `[{"type": "TEXT", "textQuery": {"text"}}]`.',
        json_schema_extra={"items": {"type": "object"}, "minItems": 1, "maxItems": 1},
    )
    sources: list[Any] = Field(
        description='Documents, as `{"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", '
        '"textDocument": {"text"}}}`, or `"type": "JSON"` with `jsonDocument`.',
        json_schema_extra=LIST,
    )
    rerankingConfiguration: RerankingConfiguration | None = Field(
        None, description="The model and the number of results. Default: empty."
    )
    nextToken: str | None = Field(
        None, description="Refused (400): all results are in one answer. Default: none."
    )

    def model_post_init(self, context: Any, /) -> None:
        """The model that the request names, where every dialect has it."""
        arn = self._model_configuration().modelArn
        if self.model is None and arn:
            self.model = arn.rsplit("/", 1)[-1]

    def sent(self) -> SentFields:
        if self.nextToken:
            raise InvalidRequest(
                "nextToken is not known here: all results are in one answer", param="nextToken"
            )
        if len(self.queries) != 1:
            raise InvalidRequest(
                f"queries must hold one query, not {len(self.queries)}", param="queries"
            )
        if not self.sources:
            raise NoTexts("sources must not be empty", param="sources")
        fields = self._model_configuration().additionalModelRequestFields or ModelRequestFields()
        path = _FIELDS_PATH
        return SentFields(
            queries=[
                (
                    text_at(self.queries[0], "queries[0]", _query_text),
                    tuple(
                        text_at(source, f"sources[{index}]", _source_text)
                        for index, source in enumerate(self.sources)
                    ),
                )
            ],
            instructions={f"{path}.instruction": fields.instruction},
            preset=Spellings({"preset": self.preset, f"{path}.preset": fields.preset}),
            truncation=TruncationPolicy(tokens=fields.max_tokens_per_doc),
            top_n=self._configuration().numberOfResults,
        )

    def has_field(self, *fields: str) -> bool:
        nested = self._model_configuration().additionalModelRequestFields
        size = nested is not None and nested.max_tokens_per_doc is not None
        return (size and "max_tokens_per_doc" in fields) or super().has_field(*fields)

    def _configuration(self) -> BedrockConfiguration:
        outer = self.rerankingConfiguration or RerankingConfiguration()
        return outer.bedrockRerankingConfiguration or BedrockConfiguration()

    def _model_configuration(self) -> ModelConfiguration:
        return self._configuration().modelConfiguration or ModelConfiguration()


_FIELDS_PATH = (
    "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration"
    ".additionalModelRequestFields"
)


def _query_text(value: Any) -> str:
    match value:
        case {"type": str(kind)} if kind != "TEXT" and "textQuery" in value:
            raise ValueError(f"has the type {kind!r}; this model reads text only")
        case {"textQuery": inner}:
            return query_of(inner)
    return query_of(value)


def _source_text(value: Any) -> str:
    """The text of a source; of a JSON document, all its fields."""
    match value:
        case {"inlineDocumentSource": inner}:
            return _document_text(inner)
    return text_of(value)


def _document_text(value: Any) -> str:
    match value:
        case {"jsonDocument": dict() as document} if document:
            return record_text(document)
        case {"jsonDocument": str(text)}:
            return text
        case {"jsonDocument": other}:
            raise ValueError(f"must hold an object in `jsonDocument`, not {type_name(other)}")
        case {"textDocument": inner}:
            return text_of(inner)
    raise ValueError("must hold its text in `textDocument` or `jsonDocument`")


class BedrockResult(BaseModel):
    index: int
    relevanceScore: float


class BedrockResponse(BaseModel):
    results: list[BedrockResult] = Field(description="Most relevant first.")


class BedrockFailure(Failure):
    """AWS' `message` and `__type`, plus the error fields that other SDKs read."""

    model_config = ConfigDict(json_schema_extra={"required": ["__type"]})

    kind: str = Field(alias="__type", description="Name of AWS' exception.")
    message: str
    detail: str
    error: ErrorObject


# AWS' exceptions by HTTP status; `InternalServerException` for every other status.
_TYPES = {
    **dict.fromkeys((400, 405, 408, 413, 415, 431), "ValidationException"),
    **dict.fromkeys((401, 403), "AccessDeniedException"),
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
}


class Bedrock(Dialect):
    name = "bedrock"
    about = "AWS Bedrock's rerank operation."
    Request = BedrockRequest
    response = BedrockResponse
    failure = BedrockFailure
    detection_rank = 25
    auth_scheme = b"aws4-hmac-sha256"
    matchers = (BodyMatcher.on(queries="any", sources="any"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "results": [
                {"index": result.index, "relevanceScore": result.number} for result in reply.best
            ]
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        kind = _TYPES.get(problem.status, "InternalServerException")
        return {"__type": kind, **openai_error(problem)}


dialect = Bedrock()
