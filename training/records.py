"""Text on disk becomes records: a passage and the questions it answers."""

from __future__ import annotations

import bz2
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from gettext import GNUTranslations
from pathlib import Path

import lxml.etree
import lxml.html

from record import Record, chinese_piece
from sources import RECORDS, UNPACKED

OWN = Path(__file__).parent / "own"
LONGEST = 900  # characters of a passage that are kept

PER_SOURCE = 4_500  # so that no manual outweighs the dictionary

MANUALS = {
    "postgresql-doc-15": "html/*.html",
    "python-django-doc": "html/**/*.html",
    "apache2-doc": "manual/en/**/*.html",
    "rust-doc": "html/{book,reference,cargo,rustc,nomicon,rust-by-example,edition-guide}/*.html",
    "nodejs-doc": "api/*.html",
    "sqlite3-doc": "sqlite3/*.html",
    "python-sqlalchemy-doc": "html/{core,orm,orm/extensions,dialects,faq,tutorial}/*.html",
    "python-scipy-doc": "html/{tutorial,tutorial/stats,reference,reference/generated}/*.html",
    "python-pandas-doc": (
        "html/{user_guide,getting_started,getting_started/intro_tutorials,reference/api}/*.html"
    ),
    "python-sklearn-doc": "html/{modules,modules/generated,.}/*.html",
    "python-jinja2-doc": "html/*.html",
    "python-flask-doc": "html/**/*.html",
    "python-werkzeug-doc": "html/**/*.html",
    "python-scrapy-doc": "html/{intro,topics,.}/*.html",
    "python-tornado-doc": "html/{guide,.}/*.html",
    "cmake-doc": "html/{manual,guide,command,module,policy,variable,prop_tgt}/*.html",
    "erlang-doc": "**/*.html",
    "sphinx-doc": "html/{usage,usage/*,development,extdev,tutorial,.}/*.html",
    "llvm-14-doc": "html/{.,CommandGuide,tutorial}/*.html",
    "ghc-doc": "html/users_guide/**/*.html",
}
SKIPPED_PARTS = (
    "/_modules/",
    "/releases/",
    "/changelog",
    "/whatsnew",
    "genindex",
    "search.html",
    "/src/",
    "/AMDGPU/",
)
DULL_HEADINGS = {
    "navigation",
    "index",
    "see also",
    "synopsis",
    "description",
    "contents",
    "notes",
    "note",
    "examples",
    "example",
    "parameters",
    "returns",
    "references",
    "attributes",
    "methods",
    "overview",
    "introduction",
    "exports",
    "types",
}


def tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def record(
    source: str, queries: Iterable[str], passage: str, language: str = "en"
) -> Record | None:
    """A record worth keeping, or None."""
    passage = tidy(passage)[:LONGEST]
    kept = [query for query in map(tidy, queries) if len(query) > 1]
    return Record(source, language, kept, passage) if kept and len(passage) > 8 else None


# ---------------------------------------------------------------- the dictionary


def wordnet(rng: random.Random) -> Iterator[Record | None]:
    """Glosses: word to meaning, meaning to word, and questions about people, places and kinds."""
    folder = UNPACKED / "wordnet-base/usr/share/wordnet"
    used = _word_counts(folder / "cntlist.rev")
    for part in ("noun", "verb", "adj"):
        for line in (folder / f"data.{part}").open(encoding="latin1"):
            if not line.startswith("  "):
                yield from _synset(line, part, used, rng)


def _word_counts(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in path.open(encoding="latin1"):
        key, _, count = line.split()
        word = key.split("%")[0]
        counts[word] = counts.get(word, 0) + int(count)
    return counts


def _synset(
    line: str, part: str, used: dict[str, int], rng: random.Random
) -> Iterator[Record | None]:
    body, gloss = line.split(" | ", 1)
    fields = body.split()
    words = [
        re.sub(r"\(.*?\)", "", fields[4 + 2 * i]).replace("_", " ")
        for i in range(int(fields[3], 16))
    ]
    meaning = re.split(r';\s*"', gloss.strip())[0].strip("; ")
    examples = re.findall(r'"([^"]{15,})"', gloss)
    is_name = " @i " in body
    common = sum(used.get(word.lower().replace(" ", "_"), 0) for word in words)
    if len(meaning) < 15 or not (common or is_name or rng.random() < 0.3):
        return
    asked, told = rng.choice(words), rng.choice(words)
    queries = _about(asked, meaning, is_name, int(fields[1]), rng)
    yield record(
        "wordnet-base", queries, _entry(words, told, meaning, examples, part, is_name, rng)
    )
    if examples and rng.random() < 0.15:
        yield record(
            "wordnet-base",
            [f"example sentence with {words[0]}", f"how to use {words[0]} in a sentence"],
            examples[0],
        )


PERSON, PLACE = 18, 15  # WordNet's lexicographer files

KIND = re.compile(
    r"\b((?:capital|largest city|port|city|town|river|state|country|island|mountain|language"
    r"|inventor|founder|president"
    r"|king|queen|author|leader|unit|member|part|branch|study|science|theory|act|process|period|side|type|kind|form"
    r"|method|system|disease|tree|bird|fish|plant|god|goddess)"
    r"[a-z ]{0,30}? (?:of|in|on|for) (?:the |an |a )?\w+(?: [A-Z]\w+)?)"
)


def _about(word: str, meaning: str, is_name: bool, file: int, rng: random.Random) -> list[str]:
    short = re.split(r"[;(]", meaning)[0].strip()
    kind = KIND.search(short)
    if kind and rng.random() < 0.6:
        head, *rest = kind[1].split()
        return [f"what is the {kind[1]}?", f"the {kind[1]}", f"What {head} is {' '.join(rest)}?"]
    if 3 <= len(short.split()) <= 14 and rng.random() < 0.3:
        if is_name:
            return [short, f"what is {short}?", f"name {short}", f"which one is {short}?"]
        return [short, f"what do you call {short}?", f"which word means {short}?"]
    if is_name and file == PERSON:
        return [f"who was {word}?", f"Who is {word}?", word, f"tell me about {word}"]
    if is_name and file == PLACE:
        return [f"where is {word}?", f"What is {word}?", word]
    return [
        f"what is {word}?",
        word,
        f"define {word}",
        f"{word} meaning",
        f"What does {word} mean?",
        f"explain {word}",
    ]


def _entry(
    words: list[str],
    word: str,
    meaning: str,
    examples: list[str],
    part: str,
    is_name: bool,
    rng: random.Random,
) -> str:
    upper = word[0].upper() + word[1:]
    style = rng.random()
    if style < 0.35:
        article = "" if is_name or part != "noun" else "An " if word[0].lower() in "aeiou" else "A "
        verb = "is" if part == "noun" else "means"
        return f"{article + word if article else upper} {verb} {meaning}."
    if style < 0.6:
        return f"{word}: {meaning}"
    if style < 0.8:
        return f"{', '.join(words)} - {meaning}" + (
            f". Example: {examples[0]}." if examples else ""
        )
    return f"{meaning[0].upper() + meaning[1:]}. {upper}." + (
        f" {examples[0]}." if examples else ""
    )


# ---------------------------------------------------------------- manuals


def manual(source: str, pattern: str, rng: random.Random) -> Iterator[Record | None]:
    files = [
        path
        for glob in _braces(pattern)
        for path in (UNPACKED / source).glob(f"usr/share/doc/**/{glob}")
    ]
    files += [
        path
        for glob in _braces(pattern)
        for path in (UNPACKED / source).glob(f"usr/share/doc/{glob}")
    ]
    unique = sorted(
        {p for p in files if p.is_file() and not any(s in str(p) for s in SKIPPED_PARTS)}
    )
    rng.shuffle(unique)
    return _limited((r for path in unique for r in sections(path, source)), PER_SOURCE)


def _braces(pattern: str) -> list[str]:
    match = re.match(r"(.*?)\{(.*?)\}/?(.*)", pattern)
    if not match:
        return [pattern]
    return [
        f"{match[1]}{'' if choice == '.' else choice + '/'}{match[3]}"
        for choice in match[2].split(",")
    ]


def _limited(records: Iterable[Record | None], limit: int) -> Iterator[Record]:
    kept = 0
    for found in records:
        if found is not None:
            yield found
            kept += 1
        if kept >= limit:
            return


def sections(path: Path, source: str, language: str = "en") -> Iterator[Record | None]:
    """Each heading of a page asks for the paragraphs below it."""
    for title, heading, paragraphs in page(path, 30 if language == "zh" else 70):
        if (
            not (2 if language == "zh" else 3) <= len(heading) < 100
            or heading.lower() in DULL_HEADINGS
        ):
            continue
        for place, paragraph in enumerate(paragraphs):
            yield record(
                source, heading_queries(title, heading, place, language), paragraph, language
            )


def page(path: Path, shortest: int) -> Iterator[tuple[str, str, list[str]]]:
    """(title, heading, up to three paragraphs of `shortest` characters or more) by heading."""
    root = lxml.html.parse(str(path), parser=lxml.html.HTMLParser(encoding="utf-8")).getroot()
    if root is None:
        return
    title = re.split(r" [—|] ", tidy(root.findtext(".//title") or ""))[0]
    heading, paragraphs = "", list[str]()
    for element in root.iter("h1", "h2", "h3", "h4", "p"):
        text = tidy(element.text_content()).rstrip("¶#").strip()
        if element.tag == "p":
            if heading and len(text) > shortest and len(paragraphs) < 3:
                paragraphs.append(text)
            continue
        if heading and paragraphs:
            yield title, heading, paragraphs
        heading, paragraphs = _unnumbered(text), []
    if heading and paragraphs:
        yield title, heading, paragraphs


def _unnumbered(heading: str) -> str:
    return re.sub(
        r"^(?:(?:Chapter|Appendix)\s+\w+\.?|[A-Z](?:\.\d+)+\.?|\d+(?:\.\d+)*\.?)\s+(?=\S)",
        "",
        heading,
    ).strip()


def heading_queries(title: str, heading: str, place: int, language: str) -> list[str]:
    with_title = [f"{title} {heading}"] if title and title != heading else [heading]
    queries = (
        [heading, heading.lower(), *with_title]
        if place == 0
        else [heading, *with_title, *with_title]
    )
    lower = heading[0].lower() + heading[1:]
    if language == "zh":
        return [
            *queries,
            f"什么是{heading}？",
            f"如何{heading}",
            f"{heading}怎么用？",
            f"请介绍{heading}",
        ]
    if re.match(r"\w+ing\b", heading):
        return [*queries, f"how to do {lower}?", f"guide to {lower}"]
    if not heading.endswith("?"):
        return [*queries, f"what is {lower}?", f"how does {lower} work?", f"explain {lower}"]
    return queries


# ---------------------------------------------------------------- Chinese


def apache_chinese() -> Iterator[Record | None]:
    for path in sorted(
        (UNPACKED / "apache2-doc").glob("usr/share/doc/apache2-doc/manual/zh-cn/**/*.html*")
    ):
        for found in sections(path, "apache2-doc", "zh"):
            if found and re.search(r"[\u4e00-\u9fff]{4}", found.passage):
                yield found


def translations() -> Iterator[tuple[str, str, str]]:
    """(source, English message, its Chinese translation) from message catalogs."""
    for source in (
        "python3-django",
        "postgresql-15",
        "apache-superset",
        "jupyterlab-language-pack-zh-CN",
    ):
        for path in sorted((UNPACKED / source).rglob("*.mo")):
            if re.search(r"zh_(CN|Hans)[/.]|/zh/", str(path)):
                yield from ((source, english, chinese) for english, chinese in _catalog(path))
    path = next((UNPACKED / "typescript").glob("package/lib/zh-cn/*.json"))
    for key, chinese in json.loads(path.read_text("utf8")).items():
        yield "typescript", re.sub(r"_\d+$", "", key).replace("_", " "), chinese


def _catalog(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        catalog = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    for key, chinese in catalog.items():
        english = key if isinstance(key, str) else key[0]
        english = english.split("\x04")[-1]
        if len(english) > 8 and re.search(r"[\u4e00-\u9fff]{2}", chinese):
            yield english, chinese


def messages(rng: random.Random) -> Iterator[Record | None]:
    """A message asks for its translation, either way, or pieces of a message for the whole."""
    for source, english, chinese in translations():
        english, chinese = (
            tidy(re.sub(r"[%{][-\w.()]*[}sdu]?|\\n|\"", " ", t)) for t in (english, chinese)
        )
        if len(chinese) < 5 or len(english) < 8:
            continue
        if rng.random() < 0.35:
            yield record(source, [english, f"how do you say '{english}' in Chinese"], chinese, "zh")
        elif rng.random() < 0.4:
            yield record(source, [chinese, f"{chinese}用英语怎么说"], english)
        elif len(chinese) > 12:
            piece = chinese_piece(chinese, rng)
            yield record(
                source,
                [piece, f"{piece}是什么意思？", f"关于{piece}", f"如何{piece}", f"为什么{piece}"],
                chinese,
                "zh",
            )


def characters(rng: random.Random) -> Iterator[Record | None]:
    """Unihan: what a Chinese character means."""
    common = {
        line.split("\t")[0]
        for line in _unihan("DictionaryLikeData")
        if "\tkFrequency\t" in line or "\tkGradeLevel\t" in line
    }
    for line in _unihan("Readings"):
        if "\tkDefinition\t" in line and line.split("\t")[0] in common:
            code, _, meaning = line.rstrip("\n").split("\t")
            sign = chr(int(code[2:], 16))
            queries = [
                f"{sign}是什么意思",
                f"what does {sign} mean?",
                f"meaning of the Chinese character {sign}",
            ]
            if rng.random() < 0.4:
                first = re.split(r"[;,]", meaning)[0]
                queries = [f"Chinese character for {first}", f"how to write {first} in Chinese"]
            yield record(
                "unicode-data",
                queries,
                f"{sign} - {meaning}" if rng.random() < 0.5 else f"{sign}: {meaning}.",
            )


def _unihan(name: str) -> Iterator[str]:
    return bz2.open(
        UNPACKED / f"unicode-data/usr/share/unicode/Unihan_{name}.txt.bz2", "rt", encoding="utf8"
    )


def names(rng: random.Random) -> Iterator[Record | None]:
    """CLDR: countries, languages and currencies in both languages; what a sign (an emoji) shows."""
    common = UNPACKED / "unicode-cldr-core/usr/share/unicode/cldr/common"
    english, chinese = (
        _display_names(common / f"main/{language}.xml") for language in ("en", "zh")
    )
    for kind, code in sorted(english.keys() & chinese.keys()):
        en, zh = english[kind, code], chinese[kind, code]
        yield record(
            "unicode-cldr-core",
            [f"{zh}用英语怎么说", f"{zh}的英文名", f"translate {zh}", zh],
            f"{zh}的英文是 {en}。",
            "zh",
        )
        yield record(
            "unicode-cldr-core",
            [f"{en} in Chinese", f"how to say {en} in Chinese", f"{en} 的中文"],
            f"{en} is called {zh} in Chinese.",
        )
    for language, sign in (("en", "{0}: a sign for {1}."), ("zh", "{0}：与{1}有关。")):
        for name, words in _annotations(common / f"annotations/{language}.xml"):
            joined = (", " if language == "en" else "、").join(words)
            asked = (
                [name, *words[:3]]
                if language == "en"
                else [f"什么是{name}？", f"{name}是什么", *words[:2]]
            )
            yield record("unicode-cldr-core", asked, sign.format(name, joined), language)


def _display_names(path: Path) -> dict[tuple[str, str], str]:
    root = lxml.etree.parse(str(path))
    found = {}
    for kind, xpath in (
        ("territory", "//territories/territory"),
        ("language", "//languages/language"),
    ):
        for element in root.xpath(xpath):
            if not element.get("alt"):
                found[kind, element.get("type")] = element.text
    for element in root.xpath("//currencies/currency[displayName]"):
        found["currency", element.get("type")] = element.findtext("displayName")
    return {key: name for key, name in found.items() if name and name != "↑↑↑"}


def _annotations(path: Path) -> Iterator[tuple[str, list[str]]]:
    spoken: dict[str, str] = {}
    words: dict[str, list[str]] = {}
    for element in lxml.etree.parse(str(path)).iter("annotation"):
        if element.get("type") == "tts":
            spoken[element.get("cp")] = element.text
        else:
            words[element.get("cp")] = element.text.split(" | ")
    for sign, name in spoken.items():
        if len(words.get(sign, [])) > 1:
            yield name, words[sign]


# ---------------------------------------------------------------- written for this project


def own(rng: random.Random) -> Iterator[Record | None]:
    """Question-answer pairs and capitals, written by hand (`own/`), Apache-2.0 like the rest."""
    for line in (OWN / "pairs.jsonl").open(encoding="utf8"):
        pair = json.loads(line)
        yield record("own", pair["queries"], pair["passage"], pair["language"])
    for line in (OWN / "capitals.tsv").open(encoding="utf8"):
        yield from _capital(*line.rstrip("\n").split("\t"), rng=rng)


def _capital(
    country: str, city: str, land: str, town: str, *, rng: random.Random
) -> Iterator[Record | None]:
    queries = [
        f"What is the capital of {country}?",
        f"capital of {country}",
        f"which city is the capital of {country}?",
    ]
    yield record(
        "own",
        queries,
        rng.choice(
            [f"{city} is the capital of {country}.", f"The capital of {country} is {city}."]
        ),
    )
    queries = [f"{land}的首都是哪里？", f"{land}的首都", f"{land}首都是哪个城市"]
    yield record(
        "own", queries, rng.choice([f"{town}是{land}的首都。", f"{land}的首都是{town}。"]), "zh"
    )


# ---------------------------------------------------------------- all of it


def every_record() -> Iterator[Record | None]:
    rng = random.Random(1)
    yield from own(rng)
    yield from wordnet(rng)
    for source, pattern in MANUALS.items():
        yield from manual(source, pattern, rng)
    yield from apache_chinese()
    yield from messages(rng)
    yield from characters(rng)
    yield from names(rng)


def write() -> dict[str, int]:
    """Write every distinct record; count them by source."""
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    with RECORDS.open("w", encoding="utf8") as file:
        for found in every_record():
            if found is None or (found.source, found.passage[:80]) in seen:
                continue
            seen.add((found.source, found.passage[:80]))
            key = f"{found.source} {found.language}"
            counts[key] = counts.get(key, 0) + 1
            file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
    return counts


if __name__ == "__main__":
    for name, count in write().items():
        print(f"{count:7d} {name}")
