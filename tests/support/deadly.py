"""Makes one token id crash the native worker, for tests of restarts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Python runs sitecustomize before the worker's own code. In other processes it does nothing.
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
    """Workers started from now on kill themselves when a document contains this token id."""
    (folder / "sitecustomize.py").write_text(_SITE)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("DEADLY_ID", str(token))
