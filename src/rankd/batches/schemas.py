"""JSON shapes of files and jobs: they validate requests and document responses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

# OpenAI's limits on how long a file is kept, in seconds.
_MIN_SECONDS, _MAX_SECONDS = 3600, 2_592_000


class ExpiresAfter(BaseModel):
    """When output files expire."""

    anchor: Literal["created_at"] = Field(description="Always `created_at`.")
    seconds: StrictInt = Field(
        ge=_MIN_SECONDS, le=_MAX_SECONDS, description="Seconds after it: 3,600 to 2,592,000."
    )


class CreateBatchRequest(BaseModel):
    # Unknown fields are accepted, as in all requests; the response has no field for a warning.
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

    input_file_id: str = Field(description="Id of an uploaded file with the purpose `batch`.")
    endpoint: str = Field(
        description="Path of every request in the file: `/v1/rerank`, `/v1/score`, or any other "
        "rerank or score path, such as `/v2/rerank` or `/voyage/v1/rerank`."
    )
    completion_window: str = Field(
        description="Time limit: `24h`, or another number of `s`, `m`, `h` or `d`, at most 30 "
        "days. Lines without a result by then expire."
    )
    metadata: dict[str, str] | None = Field(
        None, description="Up to 16 strings of your own, returned with the job. Default: none."
    )
    output_expires_after: ExpiresAfter | None = Field(
        None,
        description="When the output files are deleted. Default: the server's --batch-days.",
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
    errors: dict[str, Any] | None = Field(description="Why the job failed; null for other jobs.")
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
    output_file_id: str | None = Field(
        description="Null until the job ends, or if no line succeeded."
    )
    error_file_id: str | None = Field(description="Null until the job ends, or if no line failed.")
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
    """The form of an upload, for documentation; `upload` reads it."""

    purpose: Literal["batch"] = Field(description="Always `batch`.")
    file: str = Field(
        description="JSON lines, one request per line.", json_schema_extra={"format": "binary"}
    )
    anchor: Literal["created_at"] | None = Field(
        None,
        alias="expires_after[anchor]",
        description="Always `created_at`. Required with `seconds`.",
    )
    seconds: int | None = Field(
        None,
        alias="expires_after[seconds]",
        ge=_MIN_SECONDS,
        le=_MAX_SECONDS,
        description="Seconds after its creation when the file is deleted. Default: --batch-days.",
    )
