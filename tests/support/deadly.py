"""A native worker that one token id kills, for tests of what a server does then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Python runs it before the worker's own code; in the server's process it changes nothing
# that is used there.
_SITE = """
import os, sys
if sys.argv[:1] == ["-m"]:
    from rankd.engines.native import framing
    unpack = framing.unpack_prompts
    def deadly(body):
        batch = unpack(body)
        if any(int(os.environ["DEADLY_ID"]) in ids for _, ids in batch.suffixes):
            os.kill(os.getpid(), 9)
        return batch
    framing.unpack_prompts = deadly
"""


def make_deadly(token: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are started from now on die of this id in a document."""
    (folder / "sitecustomize.py").write_text(_SITE)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("DEADLY_ID", str(token))
