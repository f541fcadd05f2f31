"""The vLLM engine: `AsyncLLM` in this process, its arithmetic in processes of vLLM's own.

Importing it never imports vLLM; opening it does.

- engine.py    the contract: documents in one by one, logits out in order
- turns.py     who is next: priority, then fairness among calls
- failures.py  vLLM's exceptions as ours, by name
- start.py     from a checkpoint and settings to a running AsyncLLM
- args.py      the arguments we give it
- profiles.py  what differs between CUDA, Ascend NPU and CPU
- versions.py  what differs between releases of vLLM
- refusals.py  combinations that are known to score wrong
"""

from rankd.engines.vllm.engine import VllmEngine
from rankd.engines.vllm.start import open_engine

__all__ = ["VllmEngine", "open_engine"]
