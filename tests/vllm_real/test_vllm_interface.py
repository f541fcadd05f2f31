"""What rankd calls in vLLM, in the installed release; nothing is started."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from rankd.config.settings import Settings
from rankd.engines.vllm.args import engine_args, supported_args
from rankd.engines.vllm.error_mapping import translated
from rankd.engines.vllm.profiles import CPU, CUDA, NPU, DeviceProfile
from rankd.engines.vllm.versions import installed
from rankd.errors import EngineDown, InvalidRequest, TooManyRequests
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds
from support.checkpoints import NO, YES, make_checkpoint

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("profile", [CPU, CUDA, NPU], ids=lambda profile: profile.device)
def test_it_has_every_argument_of_every_profile(profile: DeviceProfile, tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    checkpoint = locate(str(make_checkpoint(tmp_path / "model", vocab_size=9_800)))
    args = engine_args(checkpoint, AnswerTokenIds(YES, NO), Settings(), profile, installed())
    fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}

    assert supported_args(args, fields, operator_args=()) == args
    assert AsyncEngineArgs(**args).max_num_batched_tokens == args["max_num_batched_tokens"]


@pytest.mark.anyio
async def test_its_methods_take_what_they_are_called_with() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector

    def bind(method: Any, *arguments: Any, **named: Any) -> None:
        inspect.signature(method).bind(*arguments, **named)

    prompt = {"type": "token", "prompt_token_ids": [1, 2]}
    bind(AsyncLLM.from_engine_args, object(), usage_context=object())
    bind(AsyncLLM.add_request, object(), "0-1", prompt, object())
    bind(AsyncLLM.abort, object(), ["0-1"])
    bind(AsyncLLM.shutdown, object())
    bind(AsyncLLM.get_supported_tasks, object())
    bind(RequestOutputCollector.get_nowait, object())
    for method in (AsyncLLM.add_request, AsyncLLM.abort, AsyncLLM.get_supported_tasks):
        assert inspect.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(RequestOutputCollector.get)
    assert not inspect.iscoroutinefunction(RequestOutputCollector.get_nowait)
    assert not inspect.iscoroutinefunction(AsyncLLM.shutdown)
    assert isinstance(AsyncLLM.errored, property)


def test_its_pooling_parameters_are_those_of_a_reranker() -> None:
    from vllm.pooling_params import PoolingParams

    params = PoolingParams(task="classify", use_activation=False)

    assert (params.task, params.use_activation) == ("classify", False)
    assert "use_activation" in params.valid_parameters["classify"]


def test_its_errors_are_mapped_by_their_names() -> None:
    from vllm import exceptions
    from vllm.v1.engine.exceptions import EngineDeadError

    expected = {
        exceptions.QueueOverflowError(): TooManyRequests,
        exceptions.MaxQueuedTokensError(): TooManyRequests,
        exceptions.RetryableRequestError(): TooManyRequests,
        exceptions.VLLMValidationError("too long"): InvalidRequest,
        EngineDeadError(): EngineDown,
    }

    assert [type(translated(theirs)) for theirs in expected] == list(expected.values())
