"""Output files: each appears under its name when it is complete, with a record of its making.

Records and unfinished files are in the folder `.rankd` of the output folder. The record is written
before the output gets its name, so an output without one is another program's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import orjson

from rankd.errors import BadSettings
from rankd.offline.rows import RowCounts

RECORDS = ".rankd"

_RECORD_FIELDS = {"about", "source", "bytes", "counts"}

_INSTEAD = "choose another --out, or replace it with --overwrite"


@dataclass(frozen=True)
class FileJob:
    """One file to score.

    Attributes:
        source: absolute path of the file.
        out: absolute path of the output folder.
        name: of the output in `out`.
    """

    source: Path
    out: Path
    name: str

    @property
    def target(self) -> Path:
        return self.out / self.name

    @property
    def record(self) -> Path:
        return self.out / RECORDS / f"{self.name}.json"


@dataclass(frozen=True)
class SourceState:
    """By which a file is known to be the same as before."""

    bytes: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Reads the whole file."""
        try:
            stat = path.stat()
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return cls(stat.st_size, stat.st_mtime_ns, digest)
        except OSError as problem:
            raise BadSettings(f"cannot read {path}: {problem.strerror}") from None

    def is_still(self, path: Path) -> bool:
        """Whether the file is the same; read only if its time of change differs."""
        stat = path.stat()
        if stat.st_size != self.bytes:
            return False
        return stat.st_mtime_ns == self.modified_ns or self.of(path).sha256 == self.sha256


def done_before(job: FileJob, about: Mapping[str, Any], *, overwrite: bool) -> RowCounts | None:
    """What the output holds if it is complete; None if the file is to be scored.

    Args:
        about: everything that decides the output, besides the input.

    Raises:
        BadSettings: there is an output of another model, of other options, of another input or
            of another program, and `overwrite` is not set.
    """
    if not job.target.exists():
        return None
    record = _read_record(job)
    if record is None:
        _refuse(job, "was not written by rankd score", overwrite)
        return None
    if record["about"] != about:
        _refuse(job, _difference(record["about"], about), overwrite)
        return None
    if not SourceState(**record["source"]).is_still(job.source):
        _refuse(job, f"was made from other contents of {job.source}", overwrite)
        return None
    # Otherwise somebody has changed it, or the disk was full.
    is_whole = job.target.stat().st_size == record["bytes"]
    return RowCounts(**record["counts"]) if is_whole else None


def _refuse(job: FileJob, problem: str, overwrite: bool) -> None:
    if not overwrite:
        raise BadSettings(f"{job.target} {problem}: {_INSTEAD}")


def _difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """`has scores of another model: 'builtin', not 'x'`."""
    name = next(name for name in {**earlier, **now} if earlier.get(name) != now.get(name))
    return f"was made with another {name}: {earlier.get(name)!r}, not {now.get(name)!r}"


def _read_record(job: FileJob) -> dict[str, Any] | None:
    try:
        record = orjson.loads(job.record.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    is_whole = isinstance(record, dict) and record.keys() >= _RECORD_FIELDS
    return record if is_whole else None


class OutputFile:
    """An output that is being written; leaving the context without `publish` removes it.

        with OutputFile(job, about, SourceState.of(job.source)) as output:
            output.stream.write(b"...")
            output.publish(counts)

    Args:
        about: as of `done_before`.
        source: the input before it was read.

    Raises:
        BadSettings: it cannot be written.
    """

    def __init__(self, job: FileJob, about: Mapping[str, Any], source: SourceState) -> None:
        self._job = job
        self._about = about
        self._source = source
        # Unique on all machines that share the folder.
        self._partial = job.record.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            job.record.parent.mkdir(parents=True, exist_ok=True)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            self.stream: IO[bytes] = self._partial.open("wb")
        except OSError as problem:
            raise self._unwritable(problem) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        try:
            self.stream.close()
            self._partial.unlink(missing_ok=True)
        except OSError as last:
            problem = problem or last
        if isinstance(problem, OSError):
            raise self._unwritable(problem) from None

    def publish(self, counts: RowCounts) -> None:
        """Give the output its name, durably.

        Raises:
            BadSettings: the input has changed meanwhile.
        """
        job = self._job
        size = self.stream.tell()
        _sync(self.stream)
        if not self._source.is_still(job.source):
            raise BadSettings(f"{job.source} has changed while it was scored: score it again")
        # An older output must not be taken for the one that the new record describes.
        job.target.unlink(missing_ok=True)
        self._write_record({"bytes": size, "counts": asdict(counts)})
        self._partial.rename(job.target)
        _sync_folder(job.target.parent)

    def _write_record(self, figures: Mapping[str, Any]) -> None:
        record = {"about": self._about, "source": asdict(self._source), **figures}
        partial = self._partial.with_suffix(".record")
        with partial.open("wb") as stream:
            stream.write(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            _sync(stream)
        partial.rename(self._job.record)
        _sync_folder(self._job.record.parent)

    def _unwritable(self, problem: OSError) -> BadSettings:
        return BadSettings(f"cannot write {self._job.target}: {problem.strerror}")


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """So that a new name in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the output folder, and remove what a killed process has left in it.

    Raises:
        BadSettings: it cannot be written, or another process scores into it.
    """
    with ExitStack() as stack:
        try:
            _hold(out / RECORDS, stack)
        except BlockingIOError:
            raise BadSettings(f"another rankd score is writing to {out}") from None
        except OSError as problem:
            raise BadSettings(f"cannot write to {out}: {problem.strerror}") from None
        yield


def _hold(records: Path, stack: ExitStack) -> None:
    records.mkdir(parents=True, exist_ok=True)
    fcntl.flock(stack.enter_context((records / "lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
    for left in (*records.rglob("*.part"), *records.rglob("*.record")):
        left.unlink(missing_ok=True)
