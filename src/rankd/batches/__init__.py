"""Batch jobs in OpenAI's manner: a file of requests in, a file of answers out, kept on disk."""

from rankd.batches.asgi_client import AsgiClient
from rankd.batches.routes import TAG, router, streams_body
from rankd.batches.service import open_batches

__all__ = ["TAG", "AsgiClient", "open_batches", "router", "streams_body"]
