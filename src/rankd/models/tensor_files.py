"""Reads the headers of safetensors files: names, dtypes and shapes of all tensors.

The server process does not import torch, and a header tells most of what is wrong with a file.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadModel

# Of a header, as in the safetensors library.
_MAX_HEADER_BYTES = 100_000_000

_LFS_POINTER = b"version https://git-lfs"
_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file.

    Attributes:
        dtype: as safetensors spells it, such as `BF16` or `F8_E4M3`.
        start, stop: its bytes in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_headers(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """All tensors of the files, by name.

    Raises:
        BadModel: a file is a Git LFS pointer, is truncated, or is not in safetensors' format.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        refuse_lfs_pointer(file)
        try:
            tensors |= _read_header(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BadModel(
                f"cannot read {file}: {problem}; the file is damaged or incomplete, "
                "download it again"
            ) from None
    return tensors


def refuse_lfs_pointer(file: Path) -> None:
    """Raise BadModel if the file is the pointer that Git leaves without Git LFS."""
    with file.open("rb") as stream:
        is_pointer = stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    if is_pointer:
        raise BadModel(
            f"{file} is a Git LFS pointer, not the file itself; run: "
            f"git lfs install && git -C {file.parent} lfs pull"
        )


def _read_header(file: Path) -> dict[str, StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"no header of a safetensors file in its {size} bytes")
        header = orjson.loads(stream.read(length))
    header.pop("__metadata__", None)
    first = 8 + length
    tensors = {name: _stored(file, entry, first) for name, entry in header.items()}
    stop = max((tensor.stop for tensor in tensors.values()), default=first)
    if stop > size:
        raise ValueError(f"it has {size} bytes, its header names {stop}")
    return tensors


def _stored(file: Path, entry: Any, first: int) -> StoredTensor:
    start, stop = map(int, entry["data_offsets"])
    shape = tuple(map(int, entry["shape"]))
    return StoredTensor(file, str(entry["dtype"]), shape, first + start, first + stop)


def have_equal_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors have the same dtype, shape and content."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(map(operator.eq, _blocks(one), _blocks(other)))


def _blocks(tensor: StoredTensor) -> Iterator[bytes]:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for start in range(tensor.start, tensor.stop, _BLOCK):
            yield stream.read(min(_BLOCK, tensor.stop - start))
