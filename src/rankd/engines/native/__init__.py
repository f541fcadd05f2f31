"""The native engine: PyTorch in a worker process. Importing this package never imports torch.

In the server's process:

- engine        the `Engine` contract; sends batches to the worker
- process       server side of the worker process: start, frames, exit
- framing       frames on the pipes

In the worker process:

- worker        its main loop
- arithmetic    number format of the products
- architecture  dimensions from config.json; refuses what cannot be computed
- weights       safetensors files into tensors
- prefix_cache  keys and values of prompt prefixes, kept between batches
- layout        one batch without padding, as one packed sequence
- model         the forward pass
- packed_attention  attention of a batch in one call, on CUDA
- product_attention  attention in bfloat16 on a CPU
- memory        splits batches that do not fit in memory
"""

from rankd.engines.native.engine import NativeEngine, open_engine

__all__ = ["NativeEngine", "open_engine"]
