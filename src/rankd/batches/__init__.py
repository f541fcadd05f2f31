"""Batch jobs in OpenAI's manner: a file of requests in, a file of answers out, kept on disk."""

from rankd.batches.inside import Inside
from rankd.batches.room import open_batches
from rankd.batches.routes import TAG, router, takes_pieces

__all__ = ["TAG", "Inside", "open_batches", "router", "takes_pieces"]
