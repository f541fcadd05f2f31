"""Attention of a whole batch in one call, with a plain implementation in place of the GPU's."""

from __future__ import annotations

import inspect
import random
import sys
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rankd.engines.native import packed_attention
from rankd.engines.native.architecture import Architecture, read_architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.layout import Layout, lay_out
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.packed_attention import PackedAttention, find_varlen_attention
from rankd.engines.native.prefix_cache import MAX_BYTES, PrefixCache
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import Prompt
from support.checkpoints import make_checkpoint
from support.native import native_model, score, transformers_logits
from support.varlen import varlen_attn

CPU = torch.device("cpu")
HEADS: dict[str, dict[str, Any]] = {
    "one query head for each key-value head": {"heads": 2, "kv_heads": 2},
    "four query heads for each key-value head": {"heads": 4, "kv_heads": 1},
    "published head_dim": {"heads": 4, "kv_heads": 2, "head_dim": 128},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("packed") / "model"
    return locate(str(make_checkpoint(folder, layers=3, vocab_size=9_800, tokenizer=False)))


def _models(checkpoint: Checkpoint, cache_bytes: int = MAX_BYTES) -> tuple[Qwen3Model, Qwen3Model]:
    """One that computes attention in one call, and one that goes segment by segment."""
    packed = native_model(checkpoint, torch.float32, cache_bytes, varlen_attn)
    return packed, native_model(checkpoint, torch.float32, cache_bytes)


def _prompts(*shapes: tuple[int, Sequence[int]], seed: int = 0) -> list[Prompt]:
    """Prompts of (prefix length, suffix lengths); all prefixes have the same beginning."""
    dice = random.Random(seed)
    beginning = [dice.randrange(9_000) for _ in range(100)]
    return [
        Prompt((*beginning[: tokens // 2], *prefix), _ids(dice, length))
        for tokens, lengths in shapes
        for prefix in [_ids(dice, tokens - tokens // 2)]
        for length in lengths
    ]


def _ids(dice: random.Random, count: int) -> tuple[int, ...]:
    return tuple(dice.randrange(9_000) for _ in range(count))


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS.keys())
def test_logits_are_those_of_transformers(heads: dict[str, Any], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", vocab_size=9_800, tokenizer=False, **heads)
    checkpoint = locate(str(folder))
    prompts = _prompts((12, (5, 9, 5)), (0, (3, 1)), (1, (1,)), (30, (20,)))

    expected = transformers_logits(checkpoint, prompts)

    assert max(expected) - min(expected) > 0.5
    assert score(_models(checkpoint)[0], prompts) == pytest.approx(expected, abs=1e-3)


def test_a_call_for_each_segment_gives_the_same_logits(checkpoint: Checkpoint) -> None:
    prompts = _prompts((20, (1, 2, 7, 7, 7, 30)), (0, (4, 4)), (40, (1, 15)))
    packed, segments = _models(checkpoint)

    assert score(packed, prompts) == pytest.approx(score(segments, prompts), abs=1e-4)


@pytest.mark.parametrize("cache_bytes", [0, 20_000, MAX_BYTES])
def test_cached_prefixes_do_not_change_logits(cache_bytes: int, checkpoint: Checkpoint) -> None:
    packed, segments = _models(checkpoint, cache_bytes)
    batches = [
        _prompts((20, (3, 8)), seed=1),
        _prompts((20, (3, 8)), (30, (5,)), seed=2),  # Other prefixes with the same beginning.
        _prompts((20, (3, 8)), (30, (5,)), seed=2),  # The same prefixes.
        _prompts((90, (2,)), seed=1),
    ]

    for batch in batches:
        assert score(packed, batch) == pytest.approx(score(segments, batch), abs=1e-4)


def test_a_prefix_computed_in_a_batch_of_its_own_is_used_later(checkpoint: Checkpoint) -> None:
    packed, segments = _models(checkpoint)
    prompts = _prompts((20, (3, 8)))

    assert packed.score(TokenBatch([array("i", prompts[0].prefix)], [])) == []

    assert score(packed, prompts) == pytest.approx(score(segments, prompts), abs=1e-4)


@pytest.mark.parametrize("limit", [1, 60, 110])
def test_many_keys_are_split_over_several_calls(
    limit: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = _prompts((20, (1, 2, 7, 7, 7, 30)), (0, (4, 4)), (40, (1, 15)))
    packed, segments = _models(checkpoint)
    monkeypatch.setattr(packed_attention, "_KEYS_PER_CALL", limit)

    calls = PackedAttention(varlen_attn, _layout(prompts, _architecture(checkpoint)), CPU).calls

    assert len(calls) > 2
    for call in calls:
        assert len(call.key_rows) <= limit or len(call.key_ends) == 2
    assert score(packed, prompts) == pytest.approx(score(segments, prompts), abs=1e-4)


def test_each_sequence_has_the_keys_of_its_prefix_and_its_own(checkpoint: Checkpoint) -> None:
    prompts = [Prompt((1, 2, 3), (4, 5)), Prompt((1, 2, 3), (6, 7)), Prompt((8,), (9,))]

    packed = PackedAttention(varlen_attn, _layout(prompts, _architecture(checkpoint)), CPU)

    # The pool: 3 rows of the first prefix, 1 of the second, then the packed tokens. These are
    # the prefixes (3 and 1 tokens), the two suffixes of the first prefix, that of the second.
    [call] = packed.calls
    assert call.query_ends.tolist() == [0, 3, 4, 6, 8, 9]
    assert call.key_ends.tolist() == [0, 3, 4, 9, 14, 16]
    assert call.key_rows.tolist() == [
        *(4, 5, 6),
        7,
        *(0, 1, 2, 8, 9),
        *(0, 1, 2, 10, 11),
        *(3, 12),
    ]
    assert (call.queries, call.max_queries, call.max_keys) == (slice(0, 9), 3, 5)
    # The last layer has one query for each suffix, and none for prefixes.
    [last] = packed.last_calls
    assert last.query_ends.tolist() == [0, 1, 2, 3]
    assert last.key_ends.tolist() == [0, 5, 10, 12]
    assert last.key_rows.tolist() == call.key_rows.tolist()[4:]
    assert (last.queries, last.max_queries, last.max_keys) == (slice(0, 3), 1, 5)


def _architecture(checkpoint: Checkpoint) -> Architecture:
    return read_architecture(checkpoint.config)


def _layout(prompts: Sequence[Prompt], architecture: Architecture) -> Layout:
    prefixes = list(dict.fromkeys(prompt.prefix for prompt in prompts))
    suffixes = [(prefixes.index(prompt.prefix), array("i", prompt.suffix)) for prompt in prompts]
    cache = PrefixCache(architecture, CPU, torch.float32, MAX_BYTES)
    return lay_out(TokenBatch([array("i", prefix) for prefix in prefixes], suffixes), cache)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_right_device_function_is_accepted(dtype: torch.dtype, checkpoint: Checkpoint) -> None:
    architecture = replace(_architecture(checkpoint), heads=2, kv_heads=1)

    assert packed_attention._difference(varlen_attn, CPU, dtype, architecture) is None


def _masked_from_the_start(query: Tensor, key: Tensor, *args: Any, **options: Any) -> Tensor:
    """Causal as if the first query had the position of the first key."""
    value, query_ends, key_ends = args[:3]
    outputs = []
    for index in range(len(query_ends) - 1):
        queries = query[query_ends[index] : query_ends[index + 1]]
        start = int(key_ends[index])
        keys = slice(start, start + len(queries))
        outputs.append(packed_attention._plain_attention(queries, key[keys], value[keys]))
    return torch.cat(outputs).to(query.dtype)


def _missing(*args: Any, **options: Any) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nat flash_api.cpp:7")


def _not_a_number(query: Tensor, *args: Any, **options: Any) -> Tensor:
    return torch.full_like(query, float("nan"))


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (_masked_from_the_start, "differs from plain attention by"),
        (_missing, "FlashAttention only supports Ampere GPUs or newer."),
        (_not_a_number, "differs from plain attention by nan"),
    ],
)
def test_a_device_function_that_is_wrong_or_missing_is_not_used(
    function: Any, problem: str, checkpoint: Checkpoint
) -> None:
    found = packed_attention._difference(
        function, CPU, torch.bfloat16, replace(_architecture(checkpoint), heads=2, kv_heads=1)
    )

    assert found is not None
    assert problem in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim"),
    [
        ("cpu", torch.bfloat16, 128),
        ("cuda", torch.float32, 128),
        ("cuda", torch.bfloat16, 260),
        ("cuda", torch.bfloat16, 4),
    ],
)
def test_segments_go_one_by_one_where_flash_attention_does_not_work(
    device: str, dtype: torch.dtype, head_dim: int, checkpoint: Checkpoint
) -> None:
    architecture = replace(_architecture(checkpoint), head_dim=head_dim)

    assert find_varlen_attention(torch.device(device), dtype, architecture) is None


def _of_2_10(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: Any, max_k: Any,
    is_causal: bool = False, return_aux: Any = None,
) -> str:  # fmt: skip
    return "2.10"


def _of_2_11(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: Any, max_k: Any, *,
    return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1),
) -> str:  # fmt: skip
    return "2.11"


def _of_2_12(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: Any, max_k: Any, *,
    return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1),
    enable_gqa: bool = False, seqused_k: Any = None, block_table: Any = None,
    num_splits: Any = None,
) -> str:  # fmt: skip
    assert enable_gqa
    return "2.12"


@pytest.mark.parametrize("release", [_of_2_11, _of_2_12])
def test_releases_of_torch_are_called_with_what_they_have(
    release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(release, monkeypatch)

    function: Any = packed_attention._torch_function()

    assert function(*range(7), window_size=(-1, 0)) == release(
        *range(7), **({"enable_gqa": True} if release is _of_2_12 else {})
    )


def test_torch_2_10_and_before_have_no_usable_function(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(_of_2_10, monkeypatch)
    assert packed_attention._torch_function() is None

    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert packed_attention._torch_function() is None


def _install(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = function
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_installed_torch_has_the_function_as_it_is_called() -> None:
    function: Any = packed_attention._torch_function()
    if function is None:
        pytest.skip(f"torch {torch.__version__} is older than 2.11")

    expected = [*inspect.signature(_of_2_12).parameters]
    assert [*inspect.signature(function.func).parameters][:7] == expected[:7]
    inspect.signature(function).bind(*range(7), window_size=(-1, 0))
