"""`rankd download`: fetches a model into the hub's cache, checks its files, prints its folder."""

from __future__ import annotations

import argparse
import sys
import threading
from functools import partial
from pathlib import Path

from rankd.cli.common import configure_logging, load_settings, write_line
from rankd.models import modelscope_download
from rankd.models.checkpoint import BUILTIN, locate
from rankd.models.download import download, in_thread
from rankd.models.verification import verify
from rankd.server.progress import await_with_progress
from rankd.telemetry.terminal import is_terminal


async def run(options: argparse.Namespace) -> int:
    """Returns 0.

    Raises:
        BadModel: the model cannot be downloaded, is damaged, or is not one that rankd serves.
    """
    settings = load_settings(options)
    # Steps are logged, too, because a download in a script or an image's build takes minutes.
    plain = {"log_format": "text"} if settings.log_format == "auto" else {}
    configure_logging(settings.model_copy(update=plain))
    fetch = modelscope_download.download if options.modelscope else _download_and_verify
    found = partial(locate, settings.model, settings.revision, fetch=fetch)
    work = in_thread(lambda cancelled: found(cancelled=cancelled))
    checkpoint = await await_with_progress(work)
    write_line(str(checkpoint.path))
    if is_terminal(sys.stderr) and checkpoint.name == settings.model != BUILTIN:
        offline = "" if options.modelscope else "HF_HUB_OFFLINE=1 "
        model = checkpoint.path if options.modelscope else checkpoint.name
        print(  # noqa: T201
            f"rankd: complete; without a network: {offline}rankd serve {model}", file=sys.stderr
        )
    return 0


def _download_and_verify(model: str, revision: str | None, cancelled: threading.Event) -> Path:
    folder = download(model, revision, cancelled)
    verify(folder, cancelled)
    return folder
