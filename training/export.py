"""Write the checkpoint as transformers reads it: Qwen3ForCausalLM, bfloat16, tied embeddings."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import vocabulary
from checkpoint import FINAL, restore
from model import Reranker
from sources import DATA

BUILTIN = Path(__file__).parents[1] / "src/rankd/models/builtin"
LONGEST = 32_768


def config(model: Reranker) -> dict[str, object]:
    tokenizer = vocabulary.load()
    shape = {
        name: value
        for name, value in model.shape.as_dict().items()
        if name not in ("yes", "no", "rope_theta")
    }
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **shape,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        # transformers 4 and vLLM read `rope_theta`, transformers 5 reads `rope_parameters`.
        "rope_theta": model.shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.shape.rope_theta},
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


def tensors(model: Reranker) -> dict[str, Tensor]:
    return {
        f"model.{name}": weight.to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
    }


def export(model: Reranker, folder: Path) -> None:
    """Each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".part"
    save_file(tensors(model), part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.rename(folder / "model.safetensors")
    part.write_text(json.dumps(config(model), indent=2) + "\n")
    part.rename(folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(vocabulary.FOLDER / name, part)
        part.rename(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=FINAL)
    parser.add_argument(
        "--out", type=Path, default=DATA / "export", help=f"the shipped one is {BUILTIN}"
    )
    chosen = parser.parse_args()
    export(restore(chosen.checkpoint), chosen.out)


if __name__ == "__main__":
    main()
