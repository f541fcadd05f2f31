"""The vLLM engine: vLLM's `AsyncLLM` in the server's process; vLLM computes in its own processes.

Importing this package never imports vLLM; opening the engine does.

- engine         the `Engine` contract, on `AsyncLLM`
- error_mapping  vLLM's exceptions → rankd's errors
- start          starts `AsyncLLM` from a checkpoint and settings
- args           vLLM's arguments
- profiles       arguments that differ between CUDA, Ascend NPU and CPU
- versions       the installed vLLM, and differences between its releases
- compatibility  refuses combinations that are known to fail or to score wrong
"""

from rankd.engines.vllm.engine import VllmEngine
from rankd.engines.vllm.start import open_engine

__all__ = ["VllmEngine", "open_engine"]
