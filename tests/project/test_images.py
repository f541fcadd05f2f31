"""docker/: what the images run at build time and at the start, without building them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.mark.parametrize("image", ["cuda", "ascend"])
def test_the_modules_that_an_image_imports_at_build_time_exist(image: str) -> None:
    text = (DOCKER / f"{image}.Dockerfile").read_text(encoding="utf-8")
    [names] = re.findall(r'python3 -c "import ([^"]+)"', text)
    own = [name for name in names.split(", ") if name.startswith("rankd.")]

    assert "rankd.server.run" in own  # It imports everything that the server needs.
    assert [name for name in own if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ("", "serve"),
        ("Qwen/Qwen3-Reranker-0.6B", "serve Qwen/Qwen3-Reranker-0.6B"),
        ("/models/mine --port 9000", "serve /models/mine --port 9000"),
        ("builtin", "serve builtin"),
        ("--model builtin", "serve --model builtin"),
        ("serve builtin", "serve builtin"),
        ("check", "check"),
        ("--version", "--version"),
        ("--help", "--help"),
    ],
)
def test_a_model_or_options_alone_are_served(tmp_path: Path, given: str, run: str) -> None:
    rankd = tmp_path / "rankd"
    rankd.write_text('#!/bin/sh\necho "$@"\n')
    rankd.chmod(0o755)

    printed = subprocess.check_output(
        ["sh", DOCKER / "entrypoint.sh", *given.split()],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        text=True,
    )

    assert printed == f"{run}\n"
