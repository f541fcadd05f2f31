"""The child process: loads the model, then answers batches until its stdin ends.

Torch is imported only after the parent can be heard, so that a parent that dies while
the model loads is noticed.
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
from rankd.telemetry.logs import configure
from rankd.types import AnswerTokenIds

if TYPE_CHECKING:
    import torch

    from rankd.engines.native.model import Qwen3Model


def main() -> None:
    # Ctrl-C and a supervisor's SIGTERM reach the whole group, but the parent decides
    # when the engine ends: it may still be draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    replies = _private_stdout()
    batches: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_hear, args=(batches, replies), daemon=True).start()
    job = WorkerConfig(**json.loads(sys.argv[1]))
    configure(job.log_level, job.log_format)
    model = _open(job, replies)
    from rankd.engines.native.memory import score

    while True:
        batch = framing.unpack_prompts(batches.get())
        _say(replies, framing.LOGITS, framing.pack_logits(score(model, batch)))


def _private_stdout() -> BinaryIO:
    """The pipe to the parent; a library that prints goes to stderr and cannot garble it."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _hear(batches: SimpleQueue[bytes], replies: BinaryIO) -> None:
    while prefix := _read(framing.LENGTH.size):
        (length,) = framing.LENGTH.unpack(prefix)
        content = _read(length)
        if content[:1] == framing.PING:
            _say(replies, framing.PONG, b"")
        else:
            batches.put(content[1:])
    # The parent closed the pipe or is dead: whatever is being computed has no reader.
    os._exit(0)


def _read(size: int) -> bytes:
    """So many bytes of stdin, or none at its end.

    Not through `sys.stdin`: its lock, held by a waiting thread, aborts an exit.
    """
    content = bytearray()
    while len(content) < size:
        piece = os.read(0, size - len(content))
        if not piece:
            return b""
        content += piece
    return bytes(content)


def _say(replies: BinaryIO, kind: bytes, body: bytes) -> None:
    # Two threads speak; a buffered writer takes each frame whole.
    replies.write(framing.frame(kind, body))
    replies.flush()


def _open(job: WorkerConfig, replies: BinaryIO) -> Qwen3Model:
    try:
        model, ready = _load(job, replies)
    except SetupError as problem:
        said = {"error": type(problem).__name__, "message": str(problem)}
        _say(replies, framing.HELLO, json.dumps(said).encode())
        sys.exit(problem.exit_code)
    _say(replies, framing.HELLO, json.dumps(ready).encode())
    return model


def _load(job: WorkerConfig, replies: BinaryIO) -> tuple[Qwen3Model, dict[str, str]]:
    try:
        import torch

        from rankd.engines.native.model import Qwen3Model
        from rankd.engines.native.weights import load
    except ImportError as problem:
        raise SetupError(
            f"the native engine cannot start ({problem}): pip install 'rankd[native]'"
        ) from None
    from rankd.engines.native.architecture import read_architecture

    torch.set_num_threads(job.threads or cores())
    shape = read_architecture(json.loads((Path(job.folder) / "config.json").read_bytes()))
    device = _device(job.device)
    if job.deterministic:
        _refuse_unproven(device)
    dtype = _dtype(job.dtype, device)
    files, answers = [Path(file) for file in job.weights], AnswerTokenIds(job.yes, job.no)
    try:
        weights = load(
            files,
            shape,
            answers,
            device,
            dtype,
            loaded=lambda *count: _say(replies, framing.LOADED, json.dumps(count).encode()),
        )
        model = Qwen3Model(weights, shape, deterministic=job.deterministic)
        return model, {
            "device": str(device),
            "dtype": str(dtype).split(".")[1],
            "arithmetic": _arithmetic(),
        }
    except (MemoryError, RuntimeError) as problem:
        # Torch reports a lack of memory, on any device, as a RuntimeError.
        reason = next(iter(str(problem).strip().splitlines()), repr(problem))
        raise SetupError(f"the model does not load on {device}: {reason}") from None


def _refuse_unproven(device: torch.device) -> None:
    if device.type != "cpu":
        raise BadSettings(
            f"deterministic: equal bits are promised on the CPU only, and the device is {device}; "
            "set device to cpu, or leave deterministic out"
        )


def _arithmetic() -> str:
    """What the last bits depend on beside the model: with other threads products are
    divided otherwise, and each instruction set has sums of its own."""
    import torch

    threads = torch.get_num_threads()
    return (
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}"
    )


def _device(asked: str) -> torch.device:
    import torch

    present = {"cuda": torch.cuda.is_available(), "npu": _has_npu(), "cpu": True}
    name = next(name for name in present if present[name]) if asked == "auto" else asked
    if not present[name]:
        raise BadSettings(f"device = {name!r}, but torch {torch.__version__} finds no such device")
    return torch.device(name)


def _has_npu() -> bool:
    import torch

    try:
        import torch_npu  # type: ignore[import-not-found]  # noqa: F401  (adds torch.npu)
    except ImportError:
        return False
    return bool(torch.npu.is_available())  # type: ignore[attr-defined]


def _dtype(asked: str, device: torch.device) -> torch.dtype:
    import torch

    if asked == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, asked)
    return dtype


if __name__ == "__main__":
    main()
