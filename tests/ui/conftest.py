"""What the tests of the pages share: a browser window, and axe-core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Browser, browsing


@pytest.fixture(scope="session")
def window() -> Iterator[Browser]:
    with browsing() as window:
        yield window


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The window, in English and in its usual size."""
    window.speak("en-US")
    window.size(1280, 950)
    window.fetched_urls()
    window.console_messages()
    return window


@pytest.fixture(scope="session")
def axe() -> Path:
    """The script of axe-core, which `make test-ui` installs with npm."""
    script = Path(os.environ.get("UI_MODULES", "")) / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        if os.environ.get("CI"):
            pytest.fail("needs axe-core: make test-ui")
        pytest.skip("needs axe-core: make test-ui")
    return script


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Path | None:
    folder: Path | None = request.config.getoption("--screenshots")
    return folder
