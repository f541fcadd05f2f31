"""Checkpoints for tests: random weights, the real Qwen vocabulary.

The vocabulary comes from the `dashscope` package, which contains the ranks of Qwen's
byte-level BPE; the merges are computed from the ranks. The ids equal those of the
published Qwen3 tokenizer: "yes" is 9693, "no" is 2152.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Qwen3Config

YES, NO = 9693, 2152
VOCABULARY = 151_669

_CONTROL = """
<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|>
<|box_start|> <|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|>
<|vision_pad|> <|image_pad|> <|video_pad|>
"""
_PLAIN = """
<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|>
<|repo_name|> <|file_sep|> <tool_response> </tool_response> <think> </think>
"""
CONTROL_TOKENS, PLAIN_TOKENS = _CONTROL.split(), _PLAIN.split()

# A field in transformers 4; transformers 5 moves it into `rope_parameters`.
_ROPE: dict[str, Any] = {"rope_theta": 1_000_000.0}

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as published for Qwen3."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(_cached_tokenizer())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "split_special_tokens": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def make_checkpoint(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    mlp: int = 128,
    tied: bool = True,
    classifier: bool = False,
    sharded: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    max_tokens: int = 40960,
    vocab_size: int = VOCABULARY,
    labels: int = 1,
    tokenizer: bool = True,
) -> Path:
    """Write a checkpoint in Qwen's format, with random weights that give logits of order 1.

    Args:
        tied: the LM head is the embedding; the file has no `lm_head.weight`.
        classifier: the converted form; its single `score` row is W[yes] - W[no].
        vocab_size: at least 9,694, for the row of "yes"; a small one makes tests fast.
        labels: rows of a classifier's head.
        sharded: several files and an index, like the 4B and 8B models.
        tokenizer: False writes a stub, for tests that need only token ids.
    """
    import torch
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=mlp,
        tie_word_embeddings=tied,
        max_position_embeddings=max_tokens,
        rms_norm_eps=1e-6,
        pad_token_id=min(151_643, vocab_size - 1),
        dtype=dtype,
        **_ROPE,
    )
    model = _random_model(config, seed, classifier, labels).to(getattr(torch, dtype))
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(folder, max_shard_size=parameters // 3 + 1 if sharded else "50GB")
    if tokenizer:
        qwen_tokenizer(folder)
    else:
        (folder / "tokenizer.json").write_text("{}")
    return folder


def _random_model(config: Qwen3Config, seed: int, classifier: bool, labels: int) -> PreTrainedModel:
    import torch
    from transformers import Qwen3ForCausalLM, Qwen3ForSequenceClassification

    config.num_labels = labels
    model = Qwen3ForSequenceClassification(config) if classifier else Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_weight(name, parameter, generator))
    return model


def _weight(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random, scaled so that every layer matters and logits are of order 1.

    The library's own initialisation gives logits near zero, where errors do not show.
    """
    import torch

    noise: torch.Tensor = torch.randn(like.shape, generator=generator)
    if "norm" in name:
        return 1 + 0.2 * noise
    if "embed_tokens" in name:
        return noise * 0.5
    scaled: torch.Tensor = noise * 1.2 * like.shape[-1] ** -0.5
    return scaled


@functools.cache
def _cached_tokenizer() -> bytes:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rankd-tests"
    file = cache / f"qwen-tokenizer-{_ranks_file().stat().st_size}.json"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # Written to a temporary file and renamed, because test runs may overlap.
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as draft:
            draft.write(json.dumps(_tokenizer(), ensure_ascii=False).encode())
        os.replace(draft.name, file)
    return file.read_bytes()


def _ranks_file() -> Path:
    # Without importing dashscope, which is slow and writes logs.
    package = importlib.util.find_spec("dashscope")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


def _tokenizer() -> dict[str, Any]:
    lines = _ranks_file().read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    characters = _byte_characters()
    written = {token: "".join(characters[byte] for byte in token) for token in ranks}
    pairs = (_last_merge(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1)
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(len(ranks)),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split | {"invert": False}, byte_level | {"use_regex": False}],
        },
        "post_processor": byte_level | {"use_regex": False},
        "decoder": byte_level | {"use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {written[token]: rank for token, rank in ranks.items()},
            "merges": [[written[left], written[right]] for left, right in pairs],
        },
    }


def _added_tokens(first: int) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": first + index, "content": token, **plain, "special": token in CONTROL_TOKENS}
        for index, token in enumerate(CONTROL_TOKENS + PLAIN_TOKENS)
    ]


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that BPE joins last: the result of merging with all lower ranks."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        best = min(joined)
        assert best < rank, token
        index = joined.index(best)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts[0], parts[1]


def _byte_characters() -> list[str]:
    """The printable character that GPT-2 uses for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]
