"""Builds images from our Dockerfiles with Debian's buildah, on base images made on this machine."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.containers import Image
from support.programs import missing, program

REPOSITORY = Path(__file__).parents[2]

# What Debian's base has not, for names of images that a Dockerfile takes as its base.
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def needed() -> None:
    """Skip without the programs, without root, or where root may not mount; fail in CI."""
    for name in ("buildah", "unshare", "nsenter"):
        program(name)
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        missing("needs root that may mount: in a container, a privileged one")


class Builder:
    """Images in a store of their own.

    Args:
        store: an empty folder for them, on a file system that is not itself an overlay or the
            slower driver `vfs` is used, which copies each layer.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        store.mkdir(parents=True, exist_ok=True)
        self._pip = pip_settings()
        self._volumes = [*_pip_volumes(self._pip, store), "/etc/ssl/certs:/etc/ssl/certs:ro"]

    def run(self, *arguments: str) -> str:
        """One command of buildah; its output."""
        root = ["--root", str(self._store / "root"), "--runroot", str(self._store / "run")]
        done = subprocess.run(
            ["buildah", *root, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def make(
        self, base: str, name: str, prepare: Callable[[Path], None], config: Sequence[str] = ()
    ) -> None:
        """An image on another one, or on `scratch`.

        Args:
            prepare: changes its file system, which is mounted at the folder that it gets.
            config: flags of `buildah config`.
        """
        container = self.run("from", "--pull-never", base)
        prepare(Path(self.run("mount", container)))
        self.run("config", *config, container)
        self.run("commit", "--quiet", "--rm", container, name)

    def make_python(self, archive: Path, name: str) -> None:
        """Python's image: a minimal Debian and, below /usr/local, the Python of these tests."""

        def prepare(root: Path) -> None:
            subprocess.run(["tar", "-xf", archive, "-C", root, "--numeric-owner"], check=True)
            _add_python(root)

        flags = ["--env", f"PATH={_PATH}", "--env", "LANG=C.UTF-8", "--cmd", "python3"]
        self.make("scratch", name, prepare, flags)

    def build(
        self,
        variant: str,
        arguments: Mapping[str, str] | None = None,
        volumes: Iterable[str] = (),
    ) -> None:
        """`docker build -f docker/VARIANT.Dockerfile -t rankd:VARIANT .`, with pip's way out."""
        flags = ["--isolation", "chroot", "--pull-never", "--format", "docker"]
        flags += ["--ignorefile", ".dockerignore"]
        for volume in [*self._volumes, *volumes]:
            flags += ["--volume", volume]
        for name, value in {**_torch_index(self._pip), **(arguments or {})}.items():
            flags += ["--build-arg", f"{name}={value}"]
        file = ["--file", str(REPOSITORY / f"docker/{variant}.Dockerfile")]
        self.run("build", *flags, *file, "--tag", tag_of(variant), str(REPOSITORY))

    def mounted(self, name: str) -> Image:
        """An image of this store, mounted."""
        container = self.run("from", "--pull-never", name)
        root = Path(self.run("mount", container))
        about = json.loads(self.run("inspect", "--type", "image", name))
        config: dict[str, Any] = about["Docker"]["config"]
        return Image(root, config, (config.get("Healthcheck") or {}).get("Test", [])[1:])

    def remove(self) -> None:
        """Unmount and delete all of it."""
        for command in ("rm", "rmi"):
            self.run(command, "--all", *(["--force"] if command == "rmi" else []))
        shutil.rmtree(self._store)


def tag_of(variant: str) -> str:
    return f"localhost/rankd:{variant}"


def bytes_of(root: Path) -> int:
    """What the files of an image take, unpacked."""
    command = ["du", "-s", "--apparent-size", "--block-size=1", "--one-file-system", str(root)]
    return int(subprocess.check_output(command, text=True).split()[0])


def pip_settings() -> dict[str, str]:
    """How pip is set up on this machine: its files, then its variables, which override them."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    pairs = [line.partition("=")[::2] for line in listed.splitlines()]
    pairs.sort(key=lambda pair: pair[0].startswith(":env:"))
    return {name.rpartition(".")[2]: ast.literal_eval(value) for name, value in pairs}


def _pip_volumes(settings: Mapping[str, str], folder: Path) -> list[str]:
    """The same set-up in a build: a file of settings, and the files and folders that it names."""
    file = folder / "pip.conf"
    lines = [f"{name} = {' '.join(value.split())}" for name, value in settings.items()]
    file.write_text("\n".join(["[global]", *lines, ""]))
    words = " ".join(settings.values()).split()
    paths = {path for path in map(_path, words) if path is not None}
    return [f"{file}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(paths))]


def _path(word: str) -> Path | None:
    path = Path(word.removeprefix("file://"))
    if not path.is_absolute() or not path.exists():
        return None
    # The pages of an index on the disk link to files beside it.
    return path.parent if word.startswith("file://") else path


def _torch_index(settings: Mapping[str, str]) -> dict[str, str]:
    """PyTorch's index is not needed where a folder of wheels has torch's build for CPUs."""
    folders = filter(None, map(_path, settings.get("find-links", "").split()))
    if any(any(folder.glob("torch-*+cpu-*.whl")) for folder in folders):
        return {"TORCH_INDEX": settings.get("index-url", "https://pypi.org/simple")}
    return {}


def site_packages(root: Path) -> Path:
    """Where pip installs in an image that `Builder.make_python` made."""
    return root / f"usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def _add_python(root: Path) -> None:
    """This machine's interpreter, its library and pip, without what else is installed."""
    prefix, library = Path(sys.base_prefix), site_packages(root).parent
    version = library.name
    left_out = shutil.ignore_patterns(
        "site-packages", "__pycache__", "test", "idlelib", "tkinter", "config-*"
    )
    shutil.copytree(prefix / "lib" / version, library, ignore=left_out, symlinks=True)
    site_packages(root).mkdir()
    for file in prefix.glob("lib/libpython*.so*"):
        shutil.copy(file, library.parent, follow_symlinks=False)
    folder = root / "usr/local/bin"
    shutil.copy(prefix / "bin" / version, folder)
    for name, target in {"python3": version, "python": version, "pip": "pip3"}.items():
        (folder / name).symlink_to(target)
    for command in (["/sbin/ldconfig"], ["/usr/local/bin/python", "-m", "ensurepip"]):
        subprocess.run(["/usr/sbin/chroot", root, *command], check=True, capture_output=True)
