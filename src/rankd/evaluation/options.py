"""Command-line options of `rankd eval` and `rankd calibrate`.

Imports little, because the parser loads it for every command.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from rankd.errors import BadSettings


@dataclass(frozen=True)
class _Options:
    url: str | None
    concurrency: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        return cls(**{field.name: getattr(given, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class EvalOptions(_Options):
    """Options of `rankd eval`; `add_eval` describes each."""

    folder: Path
    run: Path | None
    bm25: bool
    shadow_lines: Path | None
    split: str
    depth: int
    queries: int | None
    measures: list[str] | None
    ignore_identical_ids: bool
    against: str | None
    against_instruction: str | None
    against_url: str | None
    out: Path | None

    def __post_init__(self) -> None:
        _at_least_one("--depth", self.depth)
        _at_least_one("--queries", self.queries)
        _at_least_one("--concurrency", self.concurrency)
        # An empty shell variable must not silently drop the comparison.
        _not_empty("--against", self.against)
        _not_empty("--against-instruction", self.against_instruction)
        _not_empty("--against-url", self.against_url)
        first_stages = (self.bm25, self.run is not None, self.shadow_lines is not None)
        if sum(first_stages) != 1:
            raise BadSettings("give one of --run FILE, --bm25 and --shadow-lines FILE")
        against = (self.against, self.against_instruction, self.against_url, self.url)
        if self.shadow_lines and any(against):
            raise BadSettings(
                "--shadow-lines compares what its lines hold: drop --against… and --url"
            )


@dataclass(frozen=True)
class CalibrateOptions(_Options):
    """Options of `rankd calibrate`; `add_calibrate` describes each."""

    file: str
    precision: float | None
    relevant_from: float
    platt: bool
    bins: int
    picture: Path | None
    write: Path | None
    json: Path | None
    table: Path | None
    about: str

    def __post_init__(self) -> None:
        _at_least_one("--bins", self.bins)
        _at_least_one("--concurrency", self.concurrency)
        if self.precision is not None and not 0 < self.precision <= 1:
            raise BadSettings(f"--precision must be above 0 and at most 1, not {self.precision}")
        if self.picture and self.picture.suffix.lower() not in (".png", ".svg"):
            raise BadSettings(f"--picture must end in .png or .svg, not {self.picture.name!r}")
        # Checked before scoring, which may take hours.
        for file in filter(None, (self.picture, self.write, self.json, self.table)):
            _require_writable(file)
        if self.table is not None:
            self._check_table()

    def _check_table(self) -> None:
        if self.url is not None:
            raise BadSettings("--table needs the model itself: the one behind --url is unknown")
        if self.file == "-":
            raise BadSettings("--table needs a file of pairs: it holds the file's digest")
        if not self.platt:
            raise BadSettings("--table needs --platt: a table holds Platt scaling")
        if not self.about.strip():
            raise BadSettings("--table needs --about: a table says what pairs it is from")


def _at_least_one(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise BadSettings(f"{flag} must be at least 1, not {value}")


def _not_empty(flag: str, value: str | None) -> None:
    if value is not None and not value.strip():
        raise BadSettings(f"{flag} must not be empty")


def _require_writable(file: Path) -> None:
    if file.is_dir():
        raise BadSettings(f"cannot write {file}: it is a folder")
    if not file.parent.is_dir():
        raise BadSettings(f"cannot write {file}: there is no folder {file.parent}")


def add_eval(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv")
    first = "the first stage's candidates: a TREC run, or JSON {query: {document: score}}"
    add("--run", type=Path, default=None, metavar="FILE", help=first)
    add(
        "--bm25",
        action="store_true",
        default=False,
        help="find the first stage's candidates with BM25",
    )
    shadow = "judge the lines that [[shadow]] wrote, instead of scoring"
    add("--shadow-lines", type=Path, default=None, metavar="FILE", help=shadow)
    add("--split", default="test", metavar="NAME", help="name of the qrels file [test]")
    add("--depth", type=int, default=100, metavar="INT", help="candidates per query [100]")
    few = "evaluate only the first INT queries [all]"
    add("--queries", type=int, default=None, metavar="INT", help=few)
    measures = "such as nDCG@10 MRR@10 MAP Recall@5 P@1; the first is tested for significance"
    add("--measures", nargs="+", default=None, metavar="NAME", help=measures)
    same = "drop candidates whose id equals the query's (ArguAna, Quora)"
    add("--ignore-identical-ids", action="store_true", default=False, help=same)
    add("--against", default=None, metavar="MODEL", help="compare with another model")
    add(
        "--against-instruction",
        default=None,
        metavar="TEXT",
        help="compare with another instruction",
    )
    add("--against-url", default=None, metavar="URL", help="compare with another server")
    out = "folder for scores and reports [./rankd-eval/NAME]"
    add("--out", type=Path, default=None, metavar="FOLDER", help=out)
    _add_source(parser)


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    lines = "judged pairs as JSON Lines with query, document, relevant; - is stdin"
    add("file", metavar="FILE", help=lines)
    keep = "minimum precision; chooses the threshold with most recall [best F1]"
    add("--precision", type=float, default=None, metavar="SHARE", help=keep)
    grade = "lowest grade that counts as relevant [1]"
    add("--relevant-from", type=float, default=1.0, metavar="GRADE", help=grade)
    add("--platt", action="store_true", default=False, help="also fit Platt scaling")
    add(
        "--bins",
        type=int,
        default=10,
        metavar="INT",
        help="bins of ECE and the reliability diagram [10]",
    )
    picture = "draw score distributions and reliability, as .png or .svg"
    add("--picture", type=Path, default=None, metavar="FILE", help=picture)
    write = "write the settings as TOML for `rankd serve --config` [print them]"
    add("--write", type=Path, default=None, metavar="FILE", help=write)
    add("--json", type=Path, default=None, metavar="FILE", help="write all figures as JSON")
    table = "write a table for the calibrations that ship with rankd; with --about"
    add("--table", type=Path, default=None, metavar="FILE", help=table)
    add("--about", default="", metavar="TEXT", help="what the pairs of --table are, and whose")
    _add_source(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    url = "score with this server, not locally; sends --model, --instruction, --api-key"
    parser.add_argument("--url", default=None, metavar="URL", help=url)
    parser.add_argument(
        "--concurrency", type=int, default=4, metavar="INT", help="queries in flight [4]"
    )
