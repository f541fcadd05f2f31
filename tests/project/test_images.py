"""docker/: the images import modules that exist."""

from __future__ import annotations

import importlib.util
import re
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
