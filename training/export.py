"""The checkpoint as transformers reads and runs it: Qwen3ForCausalLM, bfloat16, tied embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3ForCausalLM

import construct
import vocabulary

BUILTIN = Path(__file__).parents[1] / "src/rankd/models/builtin"
LONGEST = 32_768


def config(tokenizer: Tokenizer) -> dict[str, object]:
    """What config.json holds."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": tokenizer.get_vocab_size(),
        **construct.SHAPE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        # transformers 4 and vLLM read `rope_theta`, transformers 5 reads `rope_parameters`.
        "rope_theta": construct.THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": construct.THETA},
        "max_position_embeddings": LONGEST,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
    }


def export(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".part"
    weights = {
        f"model.{name}": weight.to(torch.bfloat16).contiguous()
        for name, weight in model.model.state_dict().items()
    }
    save_file(weights, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.rename(folder / "model.safetensors")
    part.write_text(json.dumps(config(tokenizer), indent=2) + "\n")
    part.rename(folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(vocabulary.FOLDER / name, part)
        part.rename(folder / name)


@torch.inference_mode()
def last_states(model: Qwen3ForCausalLM, rows: list[list[int]]) -> Tensor:
    """(rows, hidden) of the last tokens, after the last norm.

    Rows are padded at the right, which a causal model does not see.
    """
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    ends = torch.tensor([len(row) - 1 for row in rows])
    return model.model(input_ids=ids).last_hidden_state[torch.arange(len(rows)), ends]
