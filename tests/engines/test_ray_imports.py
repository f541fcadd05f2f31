"""Only --engine ray imports Ray; other servers do not."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["rankd.server.app", "rankd.cli.main", "rankd.cli.check", "rankd.engines.ray.engine"]
)
def test_servers_do_not_import_ray(module: str) -> None:
    program = f"import {module}, sys; sys.exit('ray' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
