"""Which files are scored, and the name of each output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rankd.errors import BadSettings
from rankd.offline.formats import SUFFIXES, has_known_suffix
from rankd.offline.outputs import FileJob


def file_jobs(operands: Sequence[Path], out: Path) -> list[FileJob]:
    """One job per file, in the order of the operands; files of a folder by name.

    The output of a file has its name. Files of a folder keep their path in that folder.

    Raises:
        BadSettings: a file does not exist, two outputs have one name, or an output would replace
            an input.
    """
    out = out.resolve()
    jobs: dict[str, FileJob] = {}
    for operand in operands:
        for source, name in _files(operand.absolute(), out):
            if name in jobs:
                raise BadSettings(
                    f"{jobs[name].source} and {source} would both be written to {out / name}: "
                    "score them with two commands, or give their common folder"
                )
            jobs[name] = FileJob(source, out, name)
    sources = {job.source.resolve() for job in jobs.values()}
    for job in jobs.values():
        if job.target.resolve() in sources:
            raise BadSettings(f"--out {out}: {job.target} is an input; choose another folder")
    return list(jobs.values())


def _files(operand: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """Each file with the name of its output."""
    if not operand.exists():
        raise BadSettings(f"cannot read {operand}: No such file or directory")
    if not operand.is_dir():
        yield operand, operand.name
        return
    if out.is_relative_to(operand.resolve()):
        raise BadSettings(
            f"--out {out} is in {operand}, whose files are scored; choose another folder"
        )
    found = [path for path in sorted(operand.rglob("*")) if _is_input(path, operand)]
    if not found:
        raise BadSettings(f"{operand} holds no files that end in {', '.join(SUFFIXES)}")
    for path in found:
        yield path, path.relative_to(operand).as_posix()


def _is_input(path: Path, folder: Path) -> bool:
    """Whether it is a file of rows; `_SUCCESS` and hidden files are other programs' records."""
    parts = path.relative_to(folder).parts
    return (
        has_known_suffix(path)
        and path.is_file()
        and not any(part.startswith((".", "_")) for part in parts)
    )
