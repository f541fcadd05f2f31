"""The worker process: loads the model, then scores batches until its stdin ends.

A thread reads stdin before torch is imported, so the worker also ends when its parent dies
while the model loads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

from rankd.engines.devices import cores
from rankd.engines.native import framing
from rankd.engines.native.process import WorkerConfig
from rankd.errors import BadSettings, SetupError
from rankd.installing import install_command
from rankd.models.adapter import read_adapter
from rankd.models.tensor_files import read_headers
from rankd.telemetry.logs import configure
from rankd.types import AnswerTokenIds

if TYPE_CHECKING:
    import torch

    from rankd.engines.native.model import Qwen3Model


def main() -> None:
    # Ctrl-C, a supervisor's SIGTERM and a closed terminal reach the whole process group, but the
    # parent decides when the worker ends: it may still be draining.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    replies = _private_stdout()
    batches: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_frames, args=(batches, replies), daemon=True).start()
    config = WorkerConfig(**json.loads(sys.argv[1]))
    configure(config.log_level, config.log_format)
    model = _open(config, replies)
    from rankd.engines.native.memory import score

    while True:
        batch = framing.unpack_prompts(batches.get())
        _write(replies, framing.LOGITS, framing.pack_logits(score(model, batch)))


def _private_stdout() -> BinaryIO:
    """The pipe to the parent; from now on, what libraries print to stdout goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _read_frames(batches: SimpleQueue[bytes], replies: BinaryIO) -> None:
    """Queue batches and answer pings, until stdin ends; then end the process."""
    while header := _read(framing.LENGTH.size):
        (length,) = framing.LENGTH.unpack(header)
        content = _read(length)
        if content[:1] == framing.PING:
            _write(replies, framing.PONG, b"")
        else:
            batches.put(content[1:])
    # The parent closed the pipe or is dead, so the result of a running batch has no reader.
    os._exit(0)


def _read(size: int) -> bytes:
    """Exactly `size` bytes of stdin, or none when it ends.

    Not through `sys.stdin`: a thread that waits in it holds its lock, which aborts the exit.
    """
    content = bytearray()
    while len(content) < size:
        chunk = os.read(0, size - len(content))
        if not chunk:
            return b""
        content += chunk
    return bytes(content)


def _write(replies: BinaryIO, kind: bytes, body: bytes) -> None:
    # Two threads write; a buffered writer does not interleave the bytes of two writes.
    replies.write(framing.frame(kind, body))
    replies.flush()


def _open(config: WorkerConfig, replies: BinaryIO) -> Qwen3Model:
    """Load the model and send HELLO; end the process when the model cannot be loaded."""
    try:
        model, info = _load(config, replies)
    except SetupError as problem:
        error = {"error": type(problem).__name__, "message": str(problem)}
        _write(replies, framing.HELLO, json.dumps(error).encode())
        sys.exit(problem.exit_code)
    _write(replies, framing.HELLO, json.dumps(info).encode())
    return model


def _load(config: WorkerConfig, replies: BinaryIO) -> tuple[Qwen3Model, dict[str, str]]:
    """The model, and the fields of `WorkerInfo`.

    Raises:
        BadModel, BadSettings: the model or a setting cannot be used.
        SetupError: torch is missing, or the model does not fit in memory.
    """
    try:
        import torch

        from rankd.engines.native import arithmetic
        from rankd.engines.native.model import Qwen3Model
        from rankd.engines.native.packed_attention import find_varlen_attention
        from rankd.engines.native.weights import load
    except ImportError as problem:
        raise SetupError(
            f"the native engine cannot start ({problem}): {install_command('native')}"
        ) from None
    from rankd.engines.native.architecture import read_architecture

    torch.set_num_threads(config.threads or cores())
    config_json = (Path(config.folder) / "config.json").read_bytes()
    architecture = read_architecture(json.loads(config_json))
    device = _device(config.device)
    if config.deterministic:
        _refuse_unproven(device)
    files = [Path(file) for file in config.weights]
    answers = AnswerTokenIds(config.yes, config.no, config.scale)
    chosen = arithmetic.choose(config.dtype, device, read_headers(files), architecture)
    dtype = getattr(torch, chosen.dtype)
    adapter = read_adapter(Path(config.folder))

    def report(done: int, total: int) -> None:
        _write(replies, framing.LOADED, json.dumps([done, total]).encode())

    try:
        weights = load(files, architecture, answers, device, dtype, adapter, on_layer=report)
        model = Qwen3Model(
            weights,
            architecture,
            deterministic=config.deterministic,
            varlen=find_varlen_attention(device, dtype, architecture),
        )
    except (MemoryError, RuntimeError) as problem:
        # Torch reports a lack of memory as a RuntimeError, on any device.
        reason = next(iter(str(problem).strip().splitlines()), repr(problem))
        raise SetupError(f"the model does not load on {device}: {reason}") from None
    return model, {
        "device": str(device),
        "dtype": chosen.dtype,
        "dtype_reason": chosen.reason,
        "arithmetic": arithmetic.describe(chosen.dtype),
    }


def _refuse_unproven(device: torch.device) -> None:
    """Raise BadSettings where equal bits were never tested: anywhere but on the CPU."""
    if device.type != "cpu":
        raise BadSettings(
            f"deterministic: equal bits are promised on the CPU only, and the device is {device}; "
            "set device to cpu, or leave deterministic out"
        )


def _device(setting: str) -> torch.device:
    import torch

    available = {"cuda": torch.cuda.is_available(), "npu": _has_npu(), "cpu": True}
    name = next(name for name in available if available[name]) if setting == "auto" else setting
    if not available[name]:
        raise BadSettings(
            f"device = {name!r}, but torch {torch.__version__} finds no such device; "
            "check its driver and torch's build, or set device to auto"
        )
    return torch.device(name)


def _has_npu() -> bool:
    import torch

    try:
        import torch_npu  # type: ignore[import-not-found]  # noqa: F401  (adds torch.npu)
    except ImportError:
        return False
    return bool(torch.npu.is_available())  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
