"""Rows of the database: files, jobs, and results of lines."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
]

# Statuses with work left, and statuses from which a caller can cancel.
UNFINISHED: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")
CANCELLABLE: tuple[Status, ...] = ("validating", "in_progress")


@dataclass(frozen=True, slots=True)
class File:
    """One file; its bytes are on disk, in a file named by the id.

    Attributes:
        owner: name of the key that uploaded it; other keys get 404.
        bytes: size.
        created_at, expires_at: seconds since the epoch.
    """

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int

    def to_json(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are seconds since the epoch.

    Attributes:
        owner: name of the key that created it; other keys get 404.
        expires_at: end of the completion window.
        output_seconds: how long output files are kept.
        total: lines of the input file; 0 until it is checked.
        completed, failed: lines with status 200, and other lines with a result.
        stamps: when the job reached each status.
        errors: why it failed, as OpenAI's error objects.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    output_seconds: int
    metadata: dict[str, str] | None = None
    status: Status = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    stamps: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        errors = None if self.errors is None else {"object": "list", "data": self.errors}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.stamps.get("in_progress"),
            "expires_at": self.expires_at,
            "finalizing_at": self.stamps.get("finalizing"),
            "completed_at": self.stamps.get("completed"),
            "failed_at": self.stamps.get("failed"),
            "expired_at": self.stamps.get("expired"),
            "cancelling_at": self.stamps.get("cancelling"),
            "cancelled_at": self.stamps.get("cancelled"),
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class LineResult:
    """The result of one line.

    Attributes:
        line: index in the input file, from 0.
        succeeded: status 200; goes to the output file, else to the error file.
        row: the output line, JSON with a newline.
    """

    job_id: str
    line: int
    succeeded: bool
    row: bytes


def new_id(prefix: str) -> str:
    """An id that cannot be guessed, such as `batch_4f1c...`."""
    return f"{prefix}{uuid.uuid4().hex}"


def now() -> int:
    """Seconds since the epoch."""
    return int(time.time())
