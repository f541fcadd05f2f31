"""Workshop 1: a question and its documents become token ids."""

from rankd.prompts.encoder import Encoded, PromptEncoder, open_encoder, refuse_many_pieces

__all__ = ["Encoded", "PromptEncoder", "open_encoder", "refuse_many_pieces"]
