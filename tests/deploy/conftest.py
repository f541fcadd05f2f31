"""The chart's renderer, built once."""

from __future__ import annotations

import pytest
from kube import Chart, build_renderer


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    folder = tmp_path_factory.mktemp("chart")
    return Chart(build_renderer(folder), folder)
