"""Builds the documentation site (`make docs`): copies the pages, builds them, checks the result.

In the repository, a page of docs/ may link to any file. A site has only its own pages, so every
linked file outside docs/ becomes a page under `repository/`: Markdown unchanged, other files as
code, a folder as its README or as a list. The site needs no public address of the repository.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
STAGED = ROOT / "build/pages"  # docs_dir of mkdocs.yml
SITE = ROOT / "site"

# Fenced code; then inline code, which contains no links, or the target of a link or an image.
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})[ \t]*(\w*)[^\n]*\n.*?^\1\2[ \t]*$", re.M | re.S)
_CODE_OR_LINK = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|\]\(([^()\s]+)\)", re.S)
_LANGUAGES = {".toml": "toml", ".py": "python", ".sh": "bash", ".ts": "ts", ".json": "json"}


class BadPage(Exception):
    """A page that cannot be part of the site; the message says which and why."""


def place(file: Path, root: Path = ROOT) -> str:
    """The path of a repository file in the site."""
    inside = file.relative_to(root).as_posix()
    if inside.startswith("docs/"):
        return inside.removeprefix("docs/")
    if file.is_dir():
        return f"repository/{inside}/index.md"
    return f"repository/{inside}" + ".md" * (file.suffix != ".md")


def stage(root: Path = ROOT, into: Path = STAGED) -> None:
    """Copy docs/ and all files that it links to, with links rewritten for the copies.

    Raises:
        BadPage: a link has no target, or leads out of the repository.
    """
    shutil.rmtree(into, ignore_errors=True)
    pending = sorted(file for file in (root / "docs").rglob("*") if file.is_file())
    done: set[Path] = set()
    while pending:
        file = pending.pop()
        if file in done:
            continue
        done.add(file)
        copy = into / place(file, root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text, linked = _relinked(file, root)
            copy.write_text(text, encoding="utf-8")
            pending += linked
        elif file.is_relative_to(root / "docs") or file.suffix in (".png", ".svg"):
            shutil.copyfile(file, copy.parent / file.name)
        else:
            copy.write_text(_page_of(file, root), encoding="utf-8")


def _relinked(page: Path, root: Path) -> tuple[str, list[Path]]:
    """The text of a page with links rewritten for the copies, and the files that it links to."""
    linked: list[Path] = []

    def replaced(match: re.Match[str]) -> str:
        target = match[2]
        if target is None or urlsplit(target).scheme or target.startswith("#"):
            return match[0]
        path, hash_, anchor = target.partition("#")
        file = _linked_file(page, unquote(path), root)
        linked.append(file)
        target_path = place(file, root)
        if file.suffix in (".png", ".svg"):
            target_path = target_path.removesuffix(".md")
        relative = posixpath.relpath(target_path, posixpath.dirname(place(page, root)))
        return f"]({relative}{hash_}{anchor})"

    text = page.read_text(encoding="utf-8")
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts.append(_CODE_OR_LINK.sub(replaced, text[end : fence.start()]))
        # Words after the language are for our tests; the site builder does not know them.
        first, rest = fence[0].split("\n", 1)
        parts.append(f"{fence[1]}{fence[2]}{fence[3]}\n{rest}" if fence[3] else f"{first}\n{rest}")
        end = fence.end()
    parts.append(_CODE_OR_LINK.sub(replaced, text[end:]))
    return "".join(parts), linked


def _linked_file(page: Path, path: str, root: Path) -> Path:
    file = (page.parent / path).resolve()
    if not file.is_relative_to(root) or not file.exists():
        raise BadPage(f"{page.relative_to(root)} links {path}, which does not exist")
    readme = file / "README.md"
    return readme if readme.exists() else file


def _page_of(file: Path, root: Path) -> str:
    """A page that shows a file as code, or the names in a folder."""
    inside = file.relative_to(root).as_posix()
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {inside}\n\n"
    if file.is_dir():
        names = sorted(it.name for it in file.iterdir() if not it.name.startswith((".", "_")))
        return head + "".join(f"- `{name}`\n" for name in names)
    code = file.read_text(encoding="utf-8").rstrip("\n")
    return f"{head}````{_LANGUAGES.get(file.suffix, 'text')}\n{code}\n````\n"


class _Page(HTMLParser):
    """Collects the anchors, links and loaded resources of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "src" in given or tag == "link":
            self.parts.append(given.get("src") or given.get("href", ""))


def flaws(site: Path) -> Iterator[str]:
    """Errors of the built pages: dead links and anchors, resources loaded from other hosts."""
    pages = {}
    for file in sorted(site.rglob("*.html")):
        pages[file] = _Page()
        pages[file].feed(file.read_text(encoding="utf-8"))
    for file, page in pages.items():
        if file.name == "404.html":  # Its links are relative to the root.
            continue
        here = file.relative_to(site)
        for part in page.parts:
            if urlsplit(part).netloc:
                yield f"{here} loads {part}"
        for link in page.links:
            split = urlsplit(link)
            if split.scheme or split.netloc:
                continue
            there = (file.parent / unquote(split.path)).resolve() if split.path else file
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(split.fragment)
            if not there.exists():
                yield f"{here} links {link}, which does not exist"
            elif anchor and there in pages and anchor not in pages[there].names:
                yield f"{here} links {link}, but there is no such heading"


def main() -> int:
    """Build the site; returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        stage()
    except BadPage as problem:
        print(problem, file=sys.stderr)
        return 1
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return 1
    errors = list(flaws(SITE))
    print(*errors, sep="\n", end="\n" * bool(errors), file=sys.stderr)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}/")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
