"""The held-out sets whole, in BEIR's layout, for `rankd eval`: every passage is a candidate.

python beir.py FOLDER [--set card]

The questions are those of the known-item sets (held_out.py), which judge among twenty passages.
The texts are under other licences (GFDL, PSF, each package's own): made here, shipped nowhere.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

import held_out


def write(folder: Path, name: str, seed: int) -> None:
    found = held_out.passages_by_query(name)
    queries = list(found)
    asked = held_out.drawn(len(queries), random.Random(seed))
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines(folder / "corpus.jsonl", ((f"d{n}", text) for n, text in enumerate(found.values())))
    lines(folder / "queries.jsonl", ((f"q{place}", queries[place]) for place in asked))
    rows = [f"q{place}\td{place}\t1\n" for place in asked]
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    print(name, len(asked), "queries,", len(queries), "passages")


def lines(file: Path, rows: Iterable[tuple[str, str]]) -> None:
    objects = (json.dumps({"_id": one, "text": text}, ensure_ascii=False) for one, text in rows)
    file.write_text("".join(f"{line}\n" for line in objects), "utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=held_out.KINDS, default="card")
    chosen = parser.parse_args()
    names, seed = held_out.KINDS[chosen.set]
    for name in names:
        write(chosen.folder / name, name, seed)


if __name__ == "__main__":
    main()
