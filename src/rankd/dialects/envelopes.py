"""Error bodies that several dialects share: OpenAI's object, and `error` as a string."""

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
    """What every dialect's errors hold."""

    request_id: str = Field(
        "", description="As the header X-Request-Id; absent where what came was no request yet."
    )


class OpenAIFailure(Failure):
    """OpenAI's envelope, and the fields in which other SDKs look for a reason."""

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
    """OpenAI's envelope, with the fields beside it that other SDKs read a reason from."""
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
    """The envelope of those whose clients read `error` as a string."""
    return {
        "error": problem.message,
        "error_type": error_type,
        "message": problem.message,
        "detail": problem.message,
    }
