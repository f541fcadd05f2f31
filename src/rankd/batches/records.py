"""What is kept: files, jobs, and the answers of jobs that are not finished."""

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

# Those in which there is something left to do, and those that a caller may still cancel.
UNFINISHED: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")
CANCELLABLE: tuple[Status, ...] = ("validating", "in_progress")


@dataclass(frozen=True, slots=True)
class File:
    """One file; its bytes lie in the folder, under its id.

    Attributes:
        owner: whose key brought it; nobody else finds it.
        expires_at: seconds since the epoch.
    """

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int

    def shown(self) -> dict[str, Any]:
        """As OpenAI shows it."""
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
    """One job.

    Attributes:
        stamps: when it came into which status, as `in_progress_at`, in seconds.
        errors: why it failed, as OpenAI lists them.
        output_seconds: for which its output files are kept.
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

    def shown(self) -> dict[str, Any]:
        """As OpenAI shows it."""
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
    """What became of one line.

    Attributes:
        line: its place in the file, from 0.
        is_good: whether it stands in the output file; else in the error file.
        row: what stands there.
    """

    batch: str
    line: int
    is_good: bool
    row: bytes


def new_id(kind: str) -> str:
    """Such as `batch_4f1c...`; nobody guesses another's."""
    return f"{kind}{uuid.uuid4().hex}"


def now() -> int:
    return int(time.time())
