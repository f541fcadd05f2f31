"""The documentation site contains every page, and its links are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import configuration
import pages
from rankd.config.settings import Settings
from support.servers import run

ROOT = Path(__file__).parents[2]


def nav() -> list[str]:
    """The pages that mkdocs.yml lists, as the site names them."""
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    return re.findall(r"^ +- [^#\n]*: (\S+\.md)$", listed, re.MULTILINE)


def test_every_page_of_docs_is_in_the_navigation_once() -> None:
    written = {pages.place(file) for file in (ROOT / "docs").rglob("*.md")}
    listed = nav()

    assert sorted(set(listed)) == sorted(listed)
    assert written - set(listed) == set(), "pages that mkdocs.yml does not list"
    repository = {page for page in listed if page.startswith("repository/")}
    assert set(listed) - repository - written == set(), "mkdocs.yml lists pages missing in docs/"
    assert repository
    for page in repository:
        assert (ROOT / page.removeprefix("repository/")).exists(), page


def test_the_page_of_settings_is_generated_from_the_settings() -> None:
    written = configuration.PAGE.read_text(encoding="utf-8")

    assert written == configuration.page(), "run `python tools/configuration.py`"


def test_the_server_accepts_the_flags_on_the_page_of_settings() -> None:
    listed = re.findall(r"^`(--[a-z-]+)` · .*`RANKD_", configuration.page(), re.MULTILINE)
    values = {"api_keys": "a-key", "cors_origins": "https://example.com", "root_path": "/r"}
    arguments = []
    for flag, (name, field) in zip(listed, Settings.model_fields.items(), strict=True):
        if field.annotation is bool:
            arguments.append(flag)
        else:
            empty = {"shadow": "[]", "ab": "[]"}.get(name, "{}" if field.default == {} else 1)
            value = values.get(name) or field.default or empty
            arguments.append(f"{flag}={value}")

    ended = run("serve", "--print-config", *arguments)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("# flag") == len(listed) - 1  # [vllm] is shown without its source.
    assert "# default" not in ended.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository whose docs link outside docs/."""
    for name, text in {
        "docs/index.md": "# Home\n\n[`code`](../src/a.py), [folder](../configs), "
        "[r](../README.md#b)\n",
        "docs/deep/page.md": "[up](../index.md#home) `[no](link.md)` [web](https://example.com)\n",
        "docs/fences.md": "```python env=one name=two\n[no](link.md)\n```\n\n"
        "```\n[no](too.md)\n```\n",
        "README.md": "# A\n\n## B\n\n[docs](docs/deep/page.md) [model](models)\n",
        "src/a.py": "print('a')\n",
        "configs/one.toml": "a = 1\n",
        "models/README.md": "the model\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_files_linked_outside_docs_become_pages(repository: Path) -> None:
    into = repository / "build"

    pages.stage(repository, into)

    home = (into / "index.md").read_text()
    assert "[`code`](repository/src/a.py.md)" in home
    assert "[folder](repository/configs/index.md)" in home
    assert "[r](repository/README.md#b)" in home
    assert "````python\nprint('a')\n````" in (into / "repository/src/a.py.md").read_text()
    assert "- `one.toml`" in (into / "repository/configs/index.md").read_text()
    # And the pages that those link to.
    readme = (into / "repository/README.md").read_text()
    assert "[docs](../deep/page.md) [model](models/README.md)" in readme
    assert (into / "repository/models/README.md").exists()


def test_code_and_web_links_are_not_changed(repository: Path) -> None:
    into = repository / "build"

    pages.stage(repository, into)

    deep = (into / "deep/page.md").read_text()
    assert deep == "[up](../index.md#home) `[no](link.md)` [web](https://example.com)\n"
    fences = (into / "fences.md").read_text()
    assert fences == "```python\n[no](link.md)\n```\n\n```\n[no](too.md)\n```\n"


@pytest.mark.parametrize("link", ["gone.md", "../gone", "../../outside.md"])
def test_a_dead_link_is_an_error_that_names_it(repository: Path, link: str) -> None:
    (repository / "docs/bad.md").write_text(f"[x]({link})\n")

    with pytest.raises(pages.BadPage, match=re.escape(f"docs/bad.md links {link}")):
        pages.stage(repository, repository / "build")


def test_dead_links_and_external_resources_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">ok</a><a href="b.html#not">x</a>'
        '<a href="c.html">y</a><a href="https://example.com">z</a>'
        '<script src="https://cdn.example.com/x.js"></script>'
        '<link href="//fonts.example.com/f.css">'
    )
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2><a href="a.html#top">ok</a>')

    assert list(pages.flaws(tmp_path)) == [
        "a.html loads https://cdn.example.com/x.js",
        "a.html loads //fonts.example.com/f.css",
        "a.html links b.html#not, but there is no such heading",
        "a.html links c.html, which does not exist",
    ]
