"""Prompts: from a query and its documents to token ids."""

from rankd.prompts.chunking import refuse_many_chunks
from rankd.prompts.encoder import EncodedRequest, PromptEncoder, open_encoder

__all__ = ["EncodedRequest", "PromptEncoder", "open_encoder", "refuse_many_chunks"]
