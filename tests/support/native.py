"""Logits of the native forward pass, in this process, and of transformers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch

from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.packed_attention import VarlenAttention
from rankd.engines.native.prefix_cache import MAX_BYTES
from rankd.engines.native.weights import load
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES


def native_model(
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.float32,
    prefix_cache_bytes: int = MAX_BYTES,
    varlen: VarlenAttention | None = None,
) -> Qwen3Model:
    architecture = read_architecture(checkpoint.config)
    answers, cpu = AnswerTokenIds(YES, NO), torch.device("cpu")
    weights = load(checkpoint.weights, architecture, answers, cpu, dtype, checkpoint.adapter)
    return Qwen3Model(weights, architecture, prefix_cache_bytes, varlen=varlen)


def score(model: Qwen3Model, prompts: Sequence[Prompt]) -> list[float]:
    """The prompts as one batch."""
    prefixes = list(dict.fromkeys(prompt.prefix for prompt in prompts))
    suffixes = [(prefixes.index(prompt.prefix), array("i", prompt.suffix)) for prompt in prompts]
    return model.score(TokenBatch([array("i", prefix) for prefix in prefixes], suffixes))


def transformers_logits(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[float]:
    """As in Qwen's published example: two logits of the last token, one prompt at a time."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if checkpoint.is_classifier else AutoModelForCausalLM
    model = auto.from_pretrained(checkpoint.path, dtype=torch.float32)
    return logits_of(model, prompts, is_classifier=checkpoint.is_classifier)


def logits_of(model: Any, prompts: Sequence[Prompt], *, is_classifier: bool = False) -> list[float]:
    """One prompt at a time; a classifier of two labels has "no" before "yes"."""
    model.eval()
    logits = []
    with torch.inference_mode():
        for prompt in prompts:
            # Logits of the last token only, to save memory; their values are the same.
            options = {} if is_classifier else {"logits_to_keep": 1}
            ids = torch.tensor([prompt.prefix + prompt.suffix])
            last = model(ids, **options).logits.reshape(-1)
            pair = (last[-1], last[0] if len(last) == 2 else 0.0)
            yes, no = pair if is_classifier else (last[YES], last[NO])
            logits.append(float(yes - no))
    return logits
