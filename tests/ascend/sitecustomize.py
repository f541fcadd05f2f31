"""Mock the modules that need Ascend's driver; Python imports this file at every start.

vllm-ascend cannot be imported without torch_npu, which needs the driver's libraries. Its
configuration code only passes these objects on, so mocks are enough for the probe. Being
`sitecustomize`, this file also runs in the process in which vLLM inspects the model.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from unittest.mock import MagicMock

_MOCKED = ("torch_npu", "acl")


class _MockImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] not in _MOCKED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        mock: ModuleType = MagicMock(name=spec.name, __path__=[], __version__="2.10.0")
        return mock

    def exec_module(self, module: ModuleType) -> None:
        """A mock needs no execution."""


sys.meta_path.insert(0, _MockImporter())

import torch  # noqa: E402
import torch.distributed  # noqa: E402
import torch_npu.npu  # type: ignore[import-not-found]  # noqa: E402

# Importing torch_npu registers the device in torch.
torch.utils.rename_privateuse1_backend("npu")  # type: ignore[attr-defined]
torch.npu = torch_npu.npu  # type: ignore[attr-defined]
torch.distributed.is_hccl_available = lambda: True  # type: ignore[attr-defined]
torch.distributed.ProcessGroupHCCL = MagicMock()  # type: ignore[attr-defined]
