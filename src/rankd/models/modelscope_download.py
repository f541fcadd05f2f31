"""Downloads a model from ModelScope with ModelScope's own package, into its cache."""

from __future__ import annotations

import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

from rankd.errors import BadModel, BadSettings
from rankd.installing import pip
from rankd.models.download import PATTERNS
from rankd.telemetry.startup import StartupStep, report_step


def download(model: str, revision: str | None, _cancelled: threading.Event) -> Path:
    """The model's folder. The package shows its own progress and checks what it downloaded.

    Raises:
        BadSettings: the package is not installed.
        BadModel: the model cannot be downloaded.
    """
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise BadSettings(
            f"--modelscope needs ModelScope's package: {pip()} install modelscope"
        ) from None
    report_step(StartupStep(f"downloading {model} from ModelScope", draws_itself=True))
    try:
        with redirect_stdout(sys.stderr):  # Our stdout is the folder alone.
            return Path(snapshot_download(model, revision=revision, allow_patterns=PATTERNS))
    except Exception as problem:
        reason = next(iter(str(problem).strip().splitlines()), "") or repr(problem)
        raise BadModel(f"{model!r} could not be downloaded from ModelScope: {reason}") from problem
