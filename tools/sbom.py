"""Writes the SBOM of the wheel, in CycloneDX: `python tools/sbom.py ENVIRONMENT FOLDER`.

It lists what the wheel is installed with: rankd, its dependencies and those of its extras, in the
versions of an environment. The tools of its development are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from audit import EXTRAS, closure, installed


def main() -> None:
    environment, folder = map(Path, sys.argv[1:])
    packages = installed(environment)
    needed = closure(packages, "rankd", EXTRAS)
    names = {str(canonicalize_name(package.metadata["Name"])) for package in needed}
    version = packages["rankd"].version
    folder.mkdir(exist_ok=True)
    bom = reduced(whole(environment / "bin/python"), names, version)
    path = folder / f"rankd-{version}.cdx.json"
    path.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {len(bom['components'])} packages")


def whole(python: Path) -> dict[str, Any]:
    """The SBOM of everything that an environment holds."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--pyproject", "pyproject.toml", str(python)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    bom: dict[str, Any] = json.loads(done.stdout)
    return bom


def reduced(bom: dict[str, Any], names: set[str], version: str) -> dict[str, Any]:
    """The SBOM with these packages only, and rankd's version."""
    root = {**bom["metadata"]["component"], "version": version, "purl": f"pkg:pypi/rankd@{version}"}
    components = [
        component
        for component in bom["components"]
        if canonicalize_name(component["name"]) in names - {"rankd"}
    ]
    kept = {root["bom-ref"], *(component["bom-ref"] for component in components)}
    dependencies = [
        {**node, "dependsOn": [ref for ref in node.get("dependsOn", ()) if ref in kept]}
        for node in bom["dependencies"]
        if node["ref"] in kept
    ]
    metadata = {**bom["metadata"], "component": root}
    return {**bom, "metadata": metadata, "components": components, "dependencies": dependencies}


if __name__ == "__main__":
    main()
