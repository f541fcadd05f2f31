"""The Ray engine: replicas on a Ray cluster score the batches; Ray Serve runs the replicas.

In the server's process, the front:

- engine      the `Engine` contract; sends each batch to a replica, and to another one if it hangs
- replicas    the replicas that a front uses: which one is next, which one is refused
- cluster     connects to the cluster, and learns from Serve which replicas there are
- router      the part of it that Serve loads by its name

For the replicas, whose program is `rankd.server.replica`:

- protocol    what replicas tell about themselves, and their answers as bytes
- policy      autoscaling by waiting tokens

Importing this package does not import Ray.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from rankd.config.settings import Settings
from rankd.engines.base import Engine
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds


def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AbstractAsyncContextManager[Engine]:
    """Connect to the cluster and wait for a replica; see `engine.open_ray_engine`."""
    from rankd.engines.ray.engine import open_ray_engine

    return open_ray_engine(checkpoint, answers, settings)
