"""What requests hold and answers look like, for reading the former and documenting both."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

# Of how long a file is kept, OpenAI's own bounds.
_SHORTEST, _LONGEST = 3600, 2_592_000


class ExpiresAfter(BaseModel):
    """When files expire."""

    anchor: Literal["created_at"] = Field(description="Always `created_at`.")
    seconds: StrictInt = Field(
        ge=_SHORTEST, le=_LONGEST, description="Seconds after that: 3,600 to 2,592,000."
    )


class CreateBatchRequest(BaseModel):
    # Unknown fields are kept, as everywhere; there is no place to name them in.
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "input_file_id": "file-0f6e",
                "endpoint": "/v1/rerank",
                "completion_window": "24h",
            }
        },
    )

    input_file_id: str = Field(description="An uploaded file with the purpose `batch`.")
    endpoint: str = Field(
        description="Where every request of the file goes: `/v1/rerank`, `/v1/score`, or any "
        "other path that ranks, such as `/v2/rerank` or `/voyage/v1/rerank`."
    )
    completion_window: str = Field(
        description="What has not been answered by then expires: `24h`, or another number of "
        "`s`, `m`, `h` or `d`, 30 days at most."
    )
    metadata: dict[str, str] | None = Field(
        None, description="Up to 16 texts of yours, which come back with the job; none when absent."
    )
    output_expires_after: ExpiresAfter | None = Field(
        None,
        description="When the output files are deleted; as the server's --batch-days say when "
        "absent.",
    )


class FileObject(BaseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class FileList(BaseModel):
    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class Counts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    id: str
    object: Literal["batch"]
    endpoint: str
    errors: dict[str, Any] | None = Field(description="Of a job that failed, what was wrong.")
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "in_progress",
        "finalizing",
        "completed",
        "failed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None = Field(description="Null until it is there, or when it is empty.")
    error_file_id: str | None = Field(description="Likewise.")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class UploadForm(BaseModel):
    """The form; what it says is read where it arrives."""

    purpose: Literal["batch"] = Field(description="What it is for.")
    file: str = Field(
        description="One request a line, as JSON.", json_schema_extra={"format": "binary"}
    )
    anchor: Literal["created_at"] | None = Field(
        None,
        alias="expires_after[anchor]",
        description="Always `created_at`; with `seconds`; absent without it.",
    )
    seconds: int | None = Field(
        None,
        alias="expires_after[seconds]",
        ge=_SHORTEST,
        le=_LONGEST,
        description="When the file is deleted; as the server's --batch-days say when absent.",
    )
