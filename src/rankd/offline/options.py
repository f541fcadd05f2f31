"""Command-line options of `rankd score`.

Imports little, because the parser loads it for every command.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from rankd.errors import BadSettings

BadRows = Literal["stop", "keep"]

# Names that `--document-column` tries, in this order, if it is not given.
DOCUMENT_COLUMNS = ("document", "documents")


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        document: None: the first of `DOCUMENT_COLUMNS` that a row has.
        instruction: None: rows have no instruction of their own.
        score: of the scores; all columns that rankd adds begin with it.
    """

    query: str = "query"
    document: str | None = None
    instruction: str | None = None
    score: str = "relevance_score"

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) == "":
                raise BadSettings(f"--{field.name}-column must not be empty")

    @property
    def normalized(self) -> str:
        return f"{self.score}_normalized"

    @property
    def truncated(self) -> str:
        return f"{self.score}_truncated"

    @property
    def error(self) -> str:
        return f"{self.score}_error"

    @property
    def added(self) -> tuple[str, ...]:
        return (self.score, self.normalized, self.truncated, self.error)


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `rankd score`; `add_score` describes each.

    Attributes:
        own_instruction: whether `--instruction` is given: it is used instead of the one in a
            prompt that the texts hold.
    """

    files: list[Path]
    out: Path
    columns: Columns
    preset: str | None
    alias: str | None
    raw_scores: bool
    bad_rows: BadRows
    overwrite: bool
    ray: str | None
    ray_actors: int | None
    own_instruction: bool

    def __post_init__(self) -> None:
        if self.preset and self.own_instruction:
            raise BadSettings("--preset and --instruction both set the instruction; give one")
        if self.bad_rows not in ("stop", "keep"):
            raise BadSettings(f"--bad-rows must be stop or keep, not {self.bad_rows!r}")
        if self.ray_actors is not None and self.ray is None:
            raise BadSettings("--ray-actors needs --ray ADDRESS")
        if self.ray_actors is not None and self.ray_actors < 1:
            raise BadSettings(f"--ray-actors must be at least 1, not {self.ray_actors}")
        if self.ray == "":
            raise BadSettings("--ray must not be empty; auto finds the cluster of this machine")

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        columns = {field.name: getattr(given, f"{field.name}_column") for field in fields(Columns)}
        own: dict[str, Any] = {
            "columns": Columns(**columns),
            "own_instruction": "instruction" in given,
        }
        names = [field.name for field in fields(cls) if field.name not in own]
        return cls(**own, **{name: getattr(given, name) for name in names})


def add_score(parser: argparse.ArgumentParser) -> None:
    def add(flag: str, metavar: str, help: str, default: Any = None, **more: Any) -> None:
        parser.add_argument(flag, default=default, metavar=metavar, help=help, **more)

    files = "JSON Lines (.jsonl, .ndjson, also .gz) or Parquet; a folder: all of these in it"
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=files)
    out = "folder for the scored files; the same command goes on where it was stopped"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    add("--query-column", "NAME", "column with the query [query]", "query")
    document = "column with a document, or a list of them [document, else documents]"
    add("--document-column", "NAME", document)
    add("--instruction-column", "NAME", "column with the row's own instruction [none]")
    score = "column for the scores; other added columns begin with its name [relevance_score]"
    add("--score-column", "NAME", score, "relevance_score")
    add("--preset", "NAME", "preset of [instructions] to use, with its calibration")
    add("--alias", "NAME", "model name of [aliases] whose defaults apply")
    raw = "write logits, in nats, instead of scores from 0 to 1"
    parser.add_argument("--raw-scores", action="store_true", default=False, help=raw)
    bad = "stop at a row that cannot be scored, or keep it with its error [stop]"
    add("--bad-rows", "stop|keep", bad, "stop")
    overwrite = "replace outputs of another model, of other options or of other programs"
    parser.add_argument("--overwrite", action="store_true", default=False, help=overwrite)
    ray = "score on this Ray cluster: auto, HOST:PORT, or local to start one here"
    add("--ray", "ADDRESS", ray)
    actors = "engines on the cluster, each scores one file at a time [as many as fit]"
    add("--ray-actors", "INT", actors, type=int)
