"""Tensors of a checkpoint by name, checked as they are read, with a LoRA adapter merged in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankd.errors import BadModel
from rankd.models.adapter import LoraAdapter, base_name, shortened
from rankd.models.weight_checks import LM_HEAD

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Tensors that transformers leaves out as well: old files store the frequencies of the rotary
# embedding, and converted classifiers may have kept an LM head.
_NOT_NEEDED = ("rotary_emb.inv_freq", LM_HEAD)


class TensorFiles:
    """Tensors by name, over all files of a checkpoint.

    Args:
        dtype: of the copies that `join` makes.
        adapter: merged into the tensors that are read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        device: torch.device,
        dtype: torch.dtype,
        adapter: LoraAdapter | None = None,
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._adapter = adapter
        self._base = _mapped(files)
        self._added = _mapped([adapter.file]) if adapter else {}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._base or self._is_replaced(name)

    def _is_replaced(self, name: str) -> bool:
        return self._adapter is not None and name in self._adapter.replaced

    def read(
        self,
        name: str,
        shape: tuple[int, ...],
        rows: Sequence[int] | None = None,
        *,
        base: bool = False,
    ) -> Tensor:
        """A tensor, or some of its rows, as stored; in float32 where the adapter changes it.

        Args:
            shape: of the whole tensor.
            base: without the adapter.

        Raises:
            BadModel: it is missing, of another shape or dtype, or has values that are not finite.
        """
        self._read.add(name)
        replaced = self._is_replaced(name) and not base
        tensor = _rows(_stored(self._added if replaced else self._base, name, shape), rows)
        if not base:
            tensor = self._merged(name, tensor, shape, rows)
        _refuse_not_finite(name, tensor, self._dtype)
        return tensor

    def view(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A whole tensor as `read`, but its values are not looked at.

        Without an adapter it is a view of the mapped file, read from disk on use.
        """
        files = self._added if self._is_replaced(name) else self._base
        return _stored(files, name, shape)

    def _merged(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], rows: Sequence[int] | None
    ) -> Tensor:
        module = name.removesuffix(".weight")
        if self._adapter is None or module not in self._adapter.modules:
            return tensor
        rank = self._adapter.rank(module)
        into = _stored(self._added, f"{module}.lora_A.weight", (rank, *shape[1:])).float()
        out = _stored(self._added, f"{module}.lora_B.weight", (shape[0], rank)).float()
        return tensor.float() + _rows(out, rows) @ into * self._adapter.scaling(module)

    def join(self, names: Sequence[str], *shapes: tuple[int, ...]) -> Tensor:
        """Concatenate tensors along their first dimension, copied to the device and dtype."""
        rows = sum(shape[0] for shape in shapes)
        joined = torch.empty((rows, *shapes[0][1:]), dtype=self._dtype, device=self._device)
        start = 0
        for name, shape in zip(names, shapes, strict=True):
            joined[start : start + shape[0]].copy_(self.read(name, shape))
            start += shape[0]
        return joined

    def refuse_unread(self) -> None:
        """Refuse tensors that were not read: without them the scores could be wrong.

        Raises:
            BadModel: names them.
        """
        unread = [name for name in self._base.keys() - self._read if not name.endswith(_NOT_NEEDED)]
        if unread:
            raise BadModel(
                f"the weights hold {shortened(unread)}, for which a Qwen3 model of this "
                "config.json has no place; check architectures and num_hidden_layers, or remove "
                "from the file what the model does not need"
            )
        if self._adapter is None:
            return
        changed = {f"{module}.weight" for module in self._adapter.modules} | self._adapter.replaced
        if foreign := changed - self._read:
            raise BadModel(
                f"the adapter in {self._adapter.folder} changes {shortened(foreign)}, which the "
                f"model does not have or use; it was trained on {self._adapter.base}"
            )


def _mapped(files: Sequence[Path]) -> dict[str, Any]:
    """Name of each tensor, in the base model → a function that maps it."""
    mapped: dict[str, Any] = {}
    for file in files:
        try:
            opened = safe_open(file, framework="pt")
        except (OSError, SafetensorError) as problem:
            raise BadModel(f"cannot read {file}: {problem}") from None
        for name in opened.keys():  # noqa: SIM118 (not a dict)
            mapped[base_name(name)] = partial(opened.get_tensor, name)
    return mapped


def _stored(mapped: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor as its file has it."""
    if name not in mapped:
        raise BadModel(f"the weights lack {name}")
    tensor: Tensor = mapped[name]()
    if tuple(tensor.shape) != shape:
        raise BadModel(f"{name} is {list(tensor.shape)}; config.json says {list(shape)}")
    if tensor.dtype not in _DTYPES:
        raise BadModel(
            f"{name} holds {tensor.dtype}, so the model is quantized; the native engine reads "
            "float32, bfloat16 and float16: take the original model"
        )
    return tensor


def _rows(tensor: Tensor, rows: Sequence[int] | None) -> Tensor:
    return tensor if rows is None else tensor[list(rows)]


def _refuse_not_finite(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse NaN, infinity, and what becomes infinite in `dtype`.

    The smallest and the largest value show it: 20 GB/s on one core, ten times the speed of the
    copy, and NaN wins over both.
    """
    smallest, largest = map(float, torch.aminmax(tensor))
    if not math.isfinite(smallest + largest):
        raise BadModel(
            f"{name} holds NaN or infinite values; the file is damaged, or its training "
            "diverged: download it again or take an earlier checkpoint"
        )
    if max(-smallest, largest) > torch.finfo(dtype).max:
        raise BadModel(
            f"{name} holds {max(-smallest, largest):g}, which {str(dtype).split('.')[1]} cannot "
            "represent; set dtype to bfloat16 or float32"
        )
