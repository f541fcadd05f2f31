"""Programs as the web page shows them, written by its own JavaScript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rankd

STATIC = Path(rankd.__file__).parent / "ui" / "static"

_WRITE = """
const { SNIPPETS } = await import(process.argv[1]);
const [name, request] = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(SNIPPETS[name](request));
"""


def node() -> str:
    """Node.js; without it the test is skipped, or fails in CI."""
    path = shutil.which("node")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("needs Node.js 20")
        pytest.skip("needs Node.js 20")
    return path


def snippet(
    name: str, url: str, body: dict[str, Any], *, needs_key: bool = False, model: str = "builtin"
) -> str:
    """The program `name` of the tab Code for this request."""
    request = {"url": url, "body": body, "needsKey": needs_key, "model": model}
    program = f"(async () => {{{_WRITE}}})()"
    module = (STATIC / "snippets.js").as_uri()
    ended = subprocess.run(
        [node(), "-e", program, module],
        input=json.dumps([name, request]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
