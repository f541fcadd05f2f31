"""Quality of the built-in model: `rankd eval` and `rankd calibrate` on two small data sets.

    python bench/evaluation.py [--queries 60] [--depth 20] [--write FOLDER]

The data sets are made on each run. The built-in model was not trained on them:

- `docstrings`: Python's standard library. The query is the summary of a function or class, the
  document the rest of its docstring, without the name. It depends on the Python version, and all
  documents that BM25 finds share words with the query.
- `triples`: the project's own questions, English and Chinese (training/eval), each with one right
  and two wrong short passages. All passages are candidates. `rankd calibrate` gets the same pairs.

--write only writes the data sets in BEIR's layout, and pairs.jsonl for `rankd calibrate`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TRIPLES = [ROOT / "training/eval" / name for name in ("triples.jsonl", "triples-fresh.jsonl")]

# A sample of the standard library, large enough for a search.
_MAX_DOCUMENTS = 3_000
_SEED = 11


class Item(NamedTuple):
    query: str
    right: str
    wrong: tuple[str, ...] = ()


def docstrings() -> Iterator[Item]:
    """Docstrings of the standard library: the summary, and the rest."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests", "idlelib"} & set(file.parts):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _item(node.name, ast.get_docstring(node) or "")


def _item(name: str, docstring: str) -> Iterator[Item]:
    summary, _, rest = inspect.cleandoc(docstring).partition("\n\n")
    query, document = (" ".join(part.split()) for part in (summary, rest))
    document = re.sub(rf"\b{re.escape(name)}\b", "it", document)[:700]
    # Sentences only: signatures and names would identify their document.
    if re.fullmatch(r"[A-Z][^()<>=_:]{15,120}\.", query) and len(document) > 80:
        yield Item(query, document)


def triples() -> Iterator[Item]:
    """The project's own questions."""
    for file in TRIPLES:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Item(row["query"], row["right"], tuple(row["wrong"]))


def write(folder: Path, items: Iterable[Item], queries: int) -> None:
    """Write a data set in BEIR's layout, with a random sample of `queries` queries."""
    rng = random.Random(_SEED)
    by_query = {item.query: item for item in items}
    chosen = list({item.right: item for item in by_query.values()}.values())
    if len(chosen) > _MAX_DOCUMENTS:
        chosen = rng.sample(chosen, _MAX_DOCUMENTS)
    ids: dict[str, str] = {}
    for item in chosen:
        for text in (item.right, *item.wrong):
            ids.setdefault(text, f"d{len(ids)}")
    sample = chosen if len(chosen) <= queries else rng.sample(chosen, queries)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _lines(folder / "corpus.jsonl", ({"_id": name, "text": text} for text, name in ids.items()))
    _lines(
        folder / "queries.jsonl",
        ({"_id": f"q{n}", "text": item.query} for n, item in enumerate(sample)),
    )
    rows = [f"q{number}\t{ids[item.right]}\t1\n" for number, item in enumerate(sample)]
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))


def write_pairs(file: Path) -> None:
    """Write the triples as judged pairs."""
    _lines(
        file,
        (
            {"query": item.query, "document": text, "relevant": text == item.right}
            for item in triples()
            for text in (item.right, *item.wrong)
        ),
    )


def _lines(file: Path, rows: Iterable[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def make(folder: Path, queries: int) -> None:
    write(folder / "docstrings", docstrings(), queries)
    write(folder / "triples", triples(), queries=sys.maxsize)
    write_pairs(folder / "pairs.jsonl")


def rankd(*arguments: str | Path) -> None:
    print(
        f"$ rankd {' '.join(Path(one).name if '/' in str(one) else str(one) for one in arguments)}"
    )
    subprocess.run([sys.executable, "-m", "rankd", *map(str, arguments)], check=True)
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queries", type=int, default=60, help="number of queries of docstrings")
    parser.add_argument("--depth", type=int, default=20, help="candidates per query")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write the data sets")
    options = parser.parse_args()
    if options.write:
        make(options.write, options.queries)
        return
    print(f"built-in model; docstrings of Python {sys.version.split()[0]}\n")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder, options.queries)
        for name in ("docstrings", "triples"):
            rankd(
                *("eval", folder / name, "--bm25", "--depth", str(options.depth)),
                *("--out", folder / "out" / name),
            )
        rankd("calibrate", folder / "pairs.jsonl", "--platt")


if __name__ == "__main__":
    main()
