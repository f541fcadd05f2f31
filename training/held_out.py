"""Known-item sets from sources that were never trained on: one right passage among twenty.

Ten of the wrong ones are BM25's favourites, nine are drawn at random. The texts are under other
licences (GFDL, PSF, each package's own), so they are made again and not kept here.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path

from bm25 import Bm25
from records import page, tidy
from sources import DATA, UNPACKED

QUESTIONS, HARD, STRANGERS = 150, 10, 9
TRAINED_ON = {
    "scipy",
    "pandas",
    "scikit-learn",
    "jinja2",
    "flask",
    "werkzeug",
    "scrapy",
    "tornado",
    "sphinx",
    "sqlalchemy",
    "babel",
}
READMES = Path("/usr/lib/node_modules")  # npm's own packages; wherever node keeps them


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        query: the question.
        documents: the right passage, then ten that BM25 likes best, then nine at random.
        bm25: its score of each.
    """

    query: str
    documents: list[str]
    bm25: list[float]


def foldoc() -> Iterator[tuple[str, str]]:
    """The dictionary of computing: "what is X?" and X's entry without its headword."""
    path = UNPACKED / "dict-foldoc/usr/share/dictd/foldoc.dict.dz"
    text = gzip.decompress(path.read_bytes()).decode("utf8", "replace")
    for word, entry in re.findall(r"^(\S.{1,40})\n(?:\S.*\n)*\n((?:   .*\n|\n)+)", text, re.M):
        told = re.sub(r"^<[^>]*>\s*", "", tidy(re.sub(r"[{}]|\(\d{4}-\d\d-\d\d\)\s*$", "", entry)))[
            :700
        ]
        if len(told) > 80:
            yield f"what is {word}?", told


def jargon() -> Iterator[tuple[str, str]]:
    """The Jargon File: "what is X?" and X's entry without its headword and pronunciation."""
    path = UNPACKED / "dict-jargon/usr/share/dictd/jargon.dict.dz"
    text = gzip.decompress(path.read_bytes()).decode("utf8", "replace")
    for word, entry in re.findall(r"^(\S.{1,40})\n(?: \S.*\n)?\n((?:    .*\n|\n)+)", text, re.M):
        told = tidy(re.sub(r"[{}]", "", entry))[:700]
        if len(told) > 80:
            yield f"what is {word}?", told


def readmes() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the READMEs of installed packages."""
    texts = [
        d.metadata.get_payload() or d.metadata["Description"] or ""
        for d in distributions()
        if (d.name or "").lower() not in TRAINED_ON
    ]
    texts += [path.read_text("utf8", "ignore") for path in sorted(READMES.rglob("README.md"))]
    for text in texts:
        for heading, body in re.findall(r"^#+ +(.+)\n+((?:(?!#).*\n)*)", str(text), re.M):
            plain = _plain(heading)
            paragraphs = [
                _plain(p) for p in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", body, flags=re.S))
            ]
            good = [p for p in paragraphs if len(p) > 80]
            if (
                good
                and 4 < len(plain) < 80
                and not re.match(r"(?i)licen[sc]e|install|usage|contribut|table of", plain)
            ):
                yield plain, good[0][:700]


def _plain(markdown: str) -> str:
    text = re.sub(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])", "", markdown)  # pictures, badges
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)  # links
    return tidy(re.sub(r"<[^>]+>|[`*#|>]", "", text))


def python_docs() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the Python documentation."""
    for part in ("tutorial", "howto", "faq", "library", "using", "reference"):
        for path in sorted(
            (UNPACKED / "python3.11-doc").glob(f"usr/share/doc/python3*/html/{part}/*.html")
        ):
            for _, heading, paragraphs in page(path, 200):
                if 4 < len(heading) < 100:
                    yield heading, paragraphs[0][:700]


def long_passages() -> Iterator[tuple[str, str]]:
    """Heading to the whole beginning of its section in the Python documentation."""
    for path in sorted((UNPACKED / "python3.11-doc").glob("usr/share/doc/python3*/html/*/*.html")):
        for _, heading, paragraphs in page(path, 200):
            section = " ".join(paragraphs)
            if 4 < len(heading) < 100 and len(section) > 1200:  # 300 tokens
                yield heading, section[:2000]


def bind() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the manual of BIND, a name server."""
    yield from _headings("bind9-doc", "arm/*.html")


def exim() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the specification of Exim, a mail server."""
    yield from _headings("exim4-doc-html", "spec_html/ch*.html")


def postfix() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the guides of Postfix, another mail server."""
    yield from _headings("postfix-doc", "html/*README.html")


def varnish() -> Iterator[tuple[str, str]]:
    """Heading to paragraph in the manual of Varnish, a cache."""
    yield from _headings("varnish-doc", "html/**/*.html")


def debian_faq() -> Iterator[tuple[str, str]]:
    """Question to the first paragraph of its answer in Debian's FAQ."""
    for heading, paragraph in _headings("debian-faq", "FAQ/*.en.html"):
        if heading.endswith("?"):
            yield heading, paragraph


def _headings(package: str, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted((UNPACKED / package).glob(f"usr/share/doc/*/{pattern}")):
        for _, heading, paragraphs in page(path, 80):
            heading = heading.rstrip("\uf0c1")  # the picture of a link
            if 4 < len(heading) < 100:
                yield heading, paragraphs[0][:700]


# The design sets are scored while designing, the fresh ones now and then, the last ones once.
DESIGN = ("foldoc", "readme", "python-docs")
FRESH = ("jargon", "bind", "debian-faq")
LAST = ("exim", "postfix", "varnish")
SETS = {
    "foldoc": foldoc,
    "readme": readmes,
    "python-docs": python_docs,
    "jargon": jargon,
    "bind": bind,
    "debian-faq": debian_faq,
    "exim": exim,
    "postfix": postfix,
    "varnish": varnish,
    "long-passages": long_passages,
}


def passages_by_query(name: str) -> dict[str, str]:
    """A whole set; no query and no passage stands twice."""
    found: dict[str, str] = {}
    for query, passage in SETS[name]():
        if passage not in found.values():
            found.setdefault(query, passage)
    return found


def drawn(count: int, rng: random.Random) -> list[int]:
    """Places of the questions that are asked, out of `count`."""
    return rng.sample(range(count), min(QUESTIONS, count))


def items(name: str, seed: int) -> list[Item]:
    found = passages_by_query(name)
    queries, passages = list(found), list(found.values())
    rng, index = random.Random(seed), Bm25(passages)
    chosen = drawn(len(queries), rng)
    return [_item(queries[place], place, passages, index, rng) for place in chosen]


def _item(query: str, right: int, passages: list[str], index: Bm25, rng: random.Random) -> Item:
    hard = [place for place in index.best(query, HARD + 1) if place != right][:HARD]
    rest = [place for place in range(len(passages)) if place != right and place not in hard]
    places = [right, *hard, *rng.sample(rest, STRANGERS)]
    return Item(query, [passages[p] for p in places], [index.score(query, p) for p in places])


# By kind: the sets, and the seed by which questions are drawn. The sets of "card" are those of
# "design" with other questions.
KINDS = {
    "design": (DESIGN, 3),
    "card": (DESIGN, 11),
    "fresh": (FRESH, 21),
    "last": (LAST, 41),
    "long": (("long-passages",), 31),
}


def folder(kind: str) -> Path:
    return DATA / "held-out" / kind


def write(kind: str) -> None:
    folder(kind).mkdir(parents=True, exist_ok=True)
    names, seed = KINDS[kind]
    for name in names:
        made = items(name, seed)
        (folder(kind) / f"{name}.json").write_text(
            json.dumps([asdict(item) for item in made], ensure_ascii=False)
        )
        print(kind, name, len(made), file=sys.stderr)


def load(name: str, kind: str) -> list[Item]:
    return [Item(**item) for item in json.loads((folder(kind) / f"{name}.json").read_text("utf8"))]


if __name__ == "__main__":
    for kind_of_set in KINDS:
        write(kind_of_set)
