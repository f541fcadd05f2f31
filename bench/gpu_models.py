"""Models of `bench/gpu.py`: random weights, our forward pass, and what it is compared with.

Importing this needs only torch and `src` on the path. Where rankd's other libraries are missing,
the forward pass is imported without them.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Missing(types.ModuleType):
    """A library that is not installed; the forward pass imports it and never calls it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


def _allow_missing_libraries() -> None:
    """Make the forward pass importable with torch alone.

    `rankd.engines` and its `native` become empty packages, because their own code imports the
    server's libraries.
    """
    if all(importlib.util.find_spec(name) for name in ("orjson", "pydantic", "safetensors")):
        return
    for name in ("orjson", "safetensors"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _Missing(name)
    import rankd

    folder = Path(rankd.__file__).parent
    for name in ("rankd.engines", "rankd.engines.native"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


_allow_missing_libraries()

from rankd.engines.native.architecture import Architecture, read_architecture  # noqa: E402
from rankd.engines.native.framing import TokenBatch  # noqa: E402
from rankd.engines.native.linear import Linear  # noqa: E402
from rankd.engines.native.weights import LayerWeights, Weights  # noqa: E402

YES, NO = 9693, 2152


@dataclass(frozen=True)
class Pair:
    """Token ids of one prompt."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prefix + self.suffix


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model, by their names in `config.json`."""

    name: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int = 128
    vocab_size: int = 151_669

    @property
    def config(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if name != "name"},
            "architectures": ["Qwen3ForCausalLM"],
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "max_position_embeddings": 40_960,
            "tie_word_embeddings": True,
        }

    @property
    def products(self) -> list[tuple[int, int]]:
        """(out, in) of the matrix products of one layer."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return [
            (queries + 2 * keys, self.hidden_size),
            (self.hidden_size, queries),
            (2 * self.intermediate_size, self.hidden_size),
            (self.hidden_size, self.intermediate_size),
        ]

    def flops(self, tokens: int, suffixes: int) -> float:
        """Operations of the matrix products that our forward pass computes.

        The last layer computes keys and values of all tokens, and the rest for suffixes only.
        """
        per_token = sum(2 * rows * columns for rows, columns in self.products)
        keys_values = 4 * self.num_key_value_heads * self.head_dim * self.hidden_size
        last = tokens * keys_values + suffixes * (per_token - keys_values)
        return tokens * per_token * (self.num_hidden_layers - 1) + last


SHAPES = {
    "0.6B": Shape("0.6B", 1024, 28, 16, 8, 3072),
    "4B": Shape("4B", 2560, 36, 32, 8, 9728),
    "8B": Shape("8B", 4096, 36, 32, 8, 12_288),
    # For --small: the whole script in seconds on a CPU.
    "small": Shape("small", 64, 3, 4, 2, 128, head_dim=16, vocab_size=9_800),
}


def random_tensors(
    shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights by their names in a checkpoint; logits of order 10."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    def matrix(rows: int, columns: int) -> Tensor:
        scaled: Tensor = noise(rows, columns) * (1.2 * columns**-0.5)
        return scaled.to(dtype)

    def norm(size: int) -> Tensor:
        return (1 + 0.2 * noise(size)).to(dtype)

    hidden, mlp, head_dim = shape.hidden_size, shape.intermediate_size, shape.head_dim
    queries = shape.num_attention_heads * head_dim
    keys = shape.num_key_value_heads * head_dim
    tensors = {
        "model.embed_tokens.weight": (0.5 * noise(shape.vocab_size, hidden)).to(dtype),
        "model.norm.weight": norm(hidden),
    }
    for layer in range(shape.num_hidden_layers):
        tensors |= {
            f"model.layers.{layer}.{name}.weight": tensor
            for name, tensor in {
                "input_layernorm": norm(hidden),
                "self_attn.q_proj": matrix(queries, hidden),
                "self_attn.k_proj": matrix(keys, hidden),
                "self_attn.v_proj": matrix(keys, hidden),
                "self_attn.q_norm": norm(head_dim),
                "self_attn.k_norm": norm(head_dim),
                "self_attn.o_proj": matrix(hidden, queries),
                "post_attention_layernorm": norm(hidden),
                "mlp.gate_proj": matrix(mlp, hidden),
                "mlp.up_proj": matrix(mlp, hidden),
                "mlp.down_proj": matrix(hidden, mlp),
            }.items()
        }
    return tensors


def architecture_of(shape: Shape) -> Architecture:
    return read_architecture(shape.config)


def native_weights(shape: Shape, tensors: dict[str, Tensor], dtype: torch.dtype) -> Weights:
    """These weights for our forward pass, with matrix products in `dtype`."""
    embedding = tensors["model.embed_tokens.weight"]
    return Weights(
        embedding=embedding,
        layers=[_layer(tensors, index, dtype) for index in range(shape.num_hidden_layers)],
        norm=tensors["model.norm.weight"].float(),
        answer_rows=embedding[YES].float() - embedding[NO].float(),
    )


def _layer(tensors: dict[str, Tensor], index: int, dtype: torch.dtype) -> LayerWeights:
    def read(*names: str) -> Tensor:
        return torch.cat([tensors[f"model.layers.{index}.{name}.weight"] for name in names])

    def linear(*names: str) -> Linear:
        return Linear(read(*(f"{name}_proj" for name in names)).to(dtype))

    return LayerWeights(
        norm=read("input_layernorm").float(),
        queries=linear("self_attn.q"),
        keys_values=linear("self_attn.k", "self_attn.v"),
        q_norm=read("self_attn.q_norm").float(),
        k_norm=read("self_attn.k_norm").float(),
        out=linear("self_attn.o"),
        mlp_norm=read("post_attention_layernorm").float(),
        gate_up=linear("mlp.gate", "mlp.up"),
        down=linear("mlp.down"),
    )


def token_batch(pairs: Sequence[Pair]) -> TokenBatch:
    prefixes = {prefix: index for index, prefix in enumerate({pair.prefix: 0 for pair in pairs})}
    suffixes = [(prefixes[pair.prefix], array("i", pair.suffix)) for pair in pairs]
    return TokenBatch([array("i", prefix) for prefix in prefixes], suffixes)


@torch.inference_mode()
def reference_logits(
    shape: Shape, tensors: dict[str, Tensor], pairs: Iterable[Pair]
) -> list[float]:
    """Qwen3 in float32, written plainly: one prompt at a time, nothing shared or cached."""
    device = tensors["model.norm.weight"].device
    embedding = tensors["model.embed_tokens.weight"]
    answer = embedding[YES].float() - embedding[NO].float()
    logits = []
    for pair in pairs:
        ids = torch.tensor(pair.ids, device=device)
        hidden = F.embedding(ids, embedding).float()
        for index in range(shape.num_hidden_layers):
            hidden = _reference_layer(shape, tensors, index, hidden)
        last = _rms_norm(hidden[-1], tensors["model.norm.weight"])
        logits.append(float(last @ answer))
    return logits


def _reference_layer(
    shape: Shape, tensors: dict[str, Tensor], index: int, hidden: Tensor
) -> Tensor:
    def weight(name: str) -> Tensor:
        return tensors[f"model.layers.{index}.{name}.weight"].float()

    def heads(name: str) -> Tensor:
        projected = normed @ weight(f"self_attn.{name}_proj").T
        return projected.view(len(hidden), -1, shape.head_dim).transpose(0, 1)

    normed = _rms_norm(hidden, weight("input_layernorm"))
    query = _rotated(_rms_norm(heads("q"), weight("self_attn.q_norm")))
    key = _rotated(_rms_norm(heads("k"), weight("self_attn.k_norm")))
    shared = len(query) // len(key)
    key, value = (part.repeat_interleave(shared, dim=0) for part in (key, heads("v")))
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    hidden = hidden + attended.transpose(0, 1).flatten(1) @ weight("self_attn.o_proj").T
    normed = _rms_norm(hidden, weight("post_attention_layernorm"))
    gate = F.silu(normed @ weight("mlp.gate_proj").T)
    return hidden + (gate * (normed @ weight("mlp.up_proj").T)) @ weight("mlp.down_proj").T


def _rms_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)
    return hidden * scale * weight.float()


def _rotated(heads: Tensor) -> Tensor:
    """The rotary embedding of [heads, tokens, head_dim]."""
    tokens, head_dim = heads.shape[1:]
    exponents = torch.arange(0, head_dim, 2, device=heads.device, dtype=torch.float32) / head_dim
    positions = torch.arange(tokens, device=heads.device, dtype=torch.float32)
    angles = positions[:, None] * 1e6**-exponents
    cos, sin = angles.cos(), angles.sin()
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class TransformersModel:
    """Transformers' Qwen3 on these weights: batches of left-padded prompts."""

    def __init__(self, shape: Shape, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
        import transformers

        options = {name: value for name, value in shape.config.items() if name != "architectures"}
        config = transformers.Qwen3Config(**options)
        self._device = tensors["model.norm.weight"].device
        with torch.device(self._device):
            self.model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        self.model.load_state_dict(tensors, strict=False)
        self.model.eval()
        self.version: str = transformers.__version__

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair], *, all_logits: bool = False) -> list[float]:
        """One logit for each pair, in one batch.

        Args:
            all_logits: over the whole vocabulary at every token, as in the model card's example.
        """
        longest = max(len(pair.ids) for pair in pairs)
        ids = torch.zeros(len(pairs), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, pair in enumerate(pairs):
            ids[row, longest - len(pair.ids) :] = torch.tensor(pair.ids)
            mask[row, longest - len(pair.ids) :] = 1
        options = {} if all_logits else {"logits_to_keep": 1}
        output = self.model(ids.to(self._device), mask.to(self._device), **options)
        last = output.logits[:, -1]
        logits: list[float] = (last[:, YES].float() - last[:, NO].float()).tolist()
        return logits


class SentenceTransformersModel:
    """sentence-transformers' CrossEncoder on the model of `TransformersModel`.

    It takes texts only, so a tokenizer of one word for each id is made; its templates and its
    tokenizing of real text are not measured.
    """

    def __init__(self, model: TransformersModel, dtype: torch.dtype, vocab_size: int) -> None:
        import sentence_transformers
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = {f"w{token}": token for token in range(min(vocab_size, 9_000))}
        words = {word: token for word, token in words.items() if token not in (YES, NO)}
        words |= {"yes": YES, "no": NO, "pad": 0, "unk": 1}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="unk"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        with TemporaryDirectory(prefix="rankd-bench-") as folder:
            model.model.save_pretrained(folder)
            PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="pad", unk_token="unk", padding_side="left"
            ).save_pretrained(folder)
            self._encoder = sentence_transformers.CrossEncoder(
                folder,
                device=str(next(model.model.parameters()).device),
                model_kwargs={"dtype": dtype},
                local_files_only=True,
            )
        self.version: str = sentence_transformers.__version__

    def score(self, pairs: Sequence[Pair], batch_size: int = 32) -> list[float]:
        texts = [(_words(pair.prefix), _words(pair.suffix)) for pair in pairs]
        scores = self._encoder.predict(texts, batch_size=batch_size, show_progress_bar=False)
        return [float(score) for score in scores]


def _words(ids: Iterable[int]) -> str:
    return " ".join(f"w{token % 2_000 + 2_200}" for token in ids)
