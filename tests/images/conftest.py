"""Images that are built once for all tests, and mounted."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import vllm_image
from support.buildah import REPOSITORY, Builder, bytes_of, needed, tag_of
from support.containers import Image

BASE = Path(__file__).parent / "base.sh"


def named_in(variant: str, argument: str) -> str:
    """The base image that a Dockerfile names, with the host that Docker adds to its name."""
    text = (REPOSITORY / f"docker/{variant}.Dockerfile").read_text()
    [name] = re.findall(rf"^ARG {argument}=(\S+)$", text, re.MULTILINE)
    host, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if "." in host else f"docker.io/{name}"


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    """A store of images that is deleted at the end, with Python's image."""
    needed()
    archive = Path(os.environ.get("IMAGES_BASE", "build/images/base.tar")).absolute()
    if not archive.exists():
        subprocess.run([BASE, archive], check=True)
    with tempfile.TemporaryDirectory(prefix="rankd-images-") as folder:
        builder = Builder(Path(folder) / "store")
        try:
            builder.make_python(archive, named_in("cpu", "PYTHON_IMAGE"))
            yield builder
        finally:
            builder.remove()


@pytest.fixture(scope="session")
def cpu(builder: Builder) -> Image:
    """The image of docker/cpu.Dockerfile."""
    builder.build("cpu", {"REVISION": "abc123"})
    image = builder.mounted(tag_of("cpu"))
    print(f"\nrankd:cpu takes {bytes_of(image.root) / 1e9:.2f} GB unpacked")  # noqa: T201
    return image


@pytest.fixture
def volume() -> Iterator[Path]:
    """An empty volume, as Docker makes it of the image's /data: any user can write."""
    with tempfile.TemporaryDirectory(prefix="rankd-volume-") as folder:
        path = Path(folder) / "data"
        path.mkdir()
        path.chmod(0o1777)
        yield path


@pytest.fixture(scope="session")
def cuda(builder: Builder) -> Image:
    """The image of docker/cuda.Dockerfile, on a stand-in for vLLM's image."""
    vllm_image.make(builder, named_in("cpu", "PYTHON_IMAGE"), named_in("cuda", "VLLM_IMAGE"))
    builder.build("cuda", volumes=[vllm_image.volume()])
    return builder.mounted(tag_of("cuda"))


@pytest.fixture(scope="session")
def ascend(builder: Builder) -> Image:
    """The image of docker/ascend.Dockerfile, on a stand-in for vllm-ascend's image."""
    vllm_image.make_ascend(builder, named_in("cpu", "PYTHON_IMAGE"), named_in("ascend", "IMAGE"))
    builder.build("ascend", volumes=vllm_image.ascend_volumes())
    return builder.mounted(tag_of("ascend"))
