"""Checks the files of a model in the hub's cache against the digests that the hub gave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankd.errors import BadModel
from rankd.telemetry.startup import StartupStep, report_step

_BLOCK = 1 << 22

# The cache names a file by the hub's ETag: SHA-256 of large files, git's SHA-1 of others. Some
# mirrors send the plain SHA-1 instead. Other names are no digest that can be checked.
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


class DownloadStopped(BaseException):
    """Ends a download or a check. Not an `Exception`, which the hub's client would retry."""


def verify(folder: Path, cancelled: threading.Event) -> int:
    """Compute the digests of a snapshot's files; returns how many were compared.

    Args:
        cancelled: when it is set, the check stops.

    Raises:
        BadModel: a file is damaged; it is removed from the cache.
    """
    files = [(file, file.resolve()) for file in sorted(folder.rglob("*")) if file.is_file()]
    named = [(file, blob) for file, blob in files if _is_named_by_digest(blob)]
    total = sum(blob.stat().st_size for _, blob in named)
    done = 0
    for file, blob in named:
        digests = _digests(blob)
        for block in _blocks(blob):
            if cancelled.is_set():
                raise DownloadStopped
            for digest in digests:
                digest.update(block)
            done += len(block)
            report_step(StartupStep(f"checking {len(named)} files", done, total, "B"))
        if blob.name not in [digest.hexdigest() for digest in digests]:
            file.unlink()
            blob.unlink()
            raise BadModel(
                f"{file.name} is damaged: its digest is not {blob.name}, as the hub says. It was "
                "removed: run the same command again"
            )
    return len(named)


def _is_named_by_digest(blob: Path) -> bool:
    return blob.parent.name == "blobs" and _DIGEST.fullmatch(blob.name) is not None


def _digests(blob: Path) -> list[Any]:
    if len(blob.name) == 64:
        return [hashlib.sha256()]
    return [hashlib.sha1(f"blob {blob.stat().st_size}\0".encode()), hashlib.sha1()]


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
