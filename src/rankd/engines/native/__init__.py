"""The native engine: packed prefill in a child process. Importing it never imports torch.

- engine.py    the contract, in the server's process; keeps the child fed
- queue.py     who is next: priority, then fairness among calls
- process.py   the child as its parent sees it: start, frames, death
- wire.py      what crosses the pipe
- worker.py    the child's own main loop
- shape.py     config.json: what is computed, what is refused
- weights.py   safetensors into tensors
- heads.py     keys and values of heads, kept between batches
- layout.py    one batch as one packed row
- model.py     the forward
- memory.py    what becomes of a batch that does not fit in memory
"""

from rankd.engines.native.engine import NativeEngine, open_engine

__all__ = ["NativeEngine", "open_engine"]
