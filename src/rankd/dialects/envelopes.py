"""Error formats that several dialects share: `error` as OpenAI's object, and as a string."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.errors import RankError


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class Failure(BaseModel):
    """Fields of every dialect's errors."""

    request_id: str = Field(
        "",
        description="As the header X-Request-Id. Absent if the request could not be read.",
    )


class OpenAIFailure(Failure):
    """OpenAI's error object, beside the fields that other SDKs read the reason from."""

    error: ErrorObject
    message: str
    detail: str


class StringFailure(Failure):
    """For clients that read `error` as a string."""

    error: str
    error_type: str
    message: str
    detail: str


def openai_error(problem: RankError) -> dict[str, Any]:
    """The fields of `OpenAIFailure`, without the request's id."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.param,
            "code": problem.code,
        },
        "message": problem.message,
        "detail": problem.message,
    }


def string_error(problem: RankError, error_type: str) -> dict[str, Any]:
    """The fields of `StringFailure`, without the request's id."""
    return {
        "error": problem.message,
        "error_type": error_type,
        "message": problem.message,
        "detail": problem.message,
    }


# gRPC's names of errors by HTTP status, as Google and Pinecone send them; `UNKNOWN` for others.
GRPC_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
