"""Workshop 1: a question and its documents become token ids."""

from rankd.prompts.chunking import refuse_many_chunks
from rankd.prompts.encoder import EncodedRequest, PromptEncoder, open_encoder

__all__ = ["EncodedRequest", "PromptEncoder", "open_encoder", "refuse_many_chunks"]
