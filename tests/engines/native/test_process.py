"""The worker process: its start, errors during the start, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.engines.native import open_engine
from rankd.errors import BadModel, BadSettings, EngineDown, SetupError
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES, make_checkpoint

ANSWERS = AnswerTokenIds(YES, NO)
SETTINGS = Settings(device="cpu", threads=1)
PROMPTS = [Prompt((1, 2, 3), (4, 5))] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("process") / "model", tokenizer=False)


def _is_gone(pid: int) -> bool:
    """No such process, or one that has ended and was not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _ends(pid: int) -> bool:
    """Whether the process ends within 30 seconds."""
    end = time.monotonic() + 30
    while not _is_gone(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return _is_gone(pid)


async def _failed_start(folder: Path, settings: Settings = SETTINGS) -> SetupError:
    with pytest.raises(SetupError) as caught:
        async with open_engine(locate(str(folder)), ANSWERS, settings):
            pytest.fail("it opened")
    assert "\n" not in str(caught.value)
    return caught.value


def test_importing_the_engine_does_not_import_torch() -> None:
    code = "import sys, rankd.engines.native; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_serving_does_not_import_torch(folder: Path) -> None:
    code = f"""
        import asyncio, sys
        from rankd.models.checkpoint import locate
        from rankd.engines.native import open_engine
        from rankd.config.settings import Settings
        from rankd.types import AnswerTokenIds, Prompt

        async def serve():
            settings = Settings(device="cpu", threads=1)
            answers = AnswerTokenIds({YES}, {NO})
            async with open_engine(locate({str(folder)!r}), answers, settings) as engine:
                return await engine.score([Prompt((1,), (2,))])

        print(len(asyncio.run(serve())), "torch" in sys.modules)
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]

    assert subprocess.run(program, capture_output=True, check=True).stdout == b"1 False\n"


def test_output_that_libraries_print_goes_to_stderr() -> None:
    code = """
        import os
        from rankd.engines.native.worker import _private_stdout

        replies = _private_stdout()
        print("noise", flush=True)
        os.system("echo more noise")
        replies.write(b"answer")
        replies.flush()
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]

    run = subprocess.run(program, capture_output=True, check=True)

    assert run.stdout == b"answer"
    assert run.stderr == b"noise\nmore noise\n"


@pytest.mark.anyio
async def test_a_killed_worker_fails_every_call_and_every_check(folder: Path) -> None:
    long = [Prompt((1,), (2,) * 400)] * 500

    async with open_engine(locate(str(folder)), ANSWERS, SETTINGS) as engine:
        in_flight = [asyncio.create_task(engine.score(long)) for _ in range(3)]
        await asyncio.sleep(0.3)
        os.kill(engine.pid, signal.SIGKILL)
        failed = await asyncio.wait_for(asyncio.gather(*in_flight, return_exceptions=True), 60)
        later = await asyncio.gather(engine.score(PROMPTS), engine.check(), return_exceptions=True)

    results = [*failed, *later]
    assert [type(result) for result in results] == [EngineDown] * 5
    assert "killed by SIGKILL" in str(results[0])


@pytest.mark.slow
@pytest.mark.anyio
async def test_sigint_and_sigterm_do_not_end_the_worker(folder: Path) -> None:
    async with open_engine(locate(str(folder)), ANSWERS, SETTINGS) as engine:
        for name in (signal.SIGINT, signal.SIGTERM):
            os.kill(engine.pid, name)
        await asyncio.sleep(0.2)
        await engine.check()
        logits = await engine.score(PROMPTS)

    assert len(logits) == 3
    assert _is_gone(engine.pid)


@pytest.mark.slow
@pytest.mark.anyio
async def test_closing_the_engine_fails_calls_and_leaves_no_process(folder: Path) -> None:
    long = [Prompt((1,), (2,) * 400)] * 500

    async with open_engine(locate(str(folder)), ANSWERS, SETTINGS) as engine:
        call = asyncio.create_task(engine.score(long))
        await asyncio.sleep(0.3)
    (result,) = await asyncio.gather(call, return_exceptions=True)

    assert isinstance(result, EngineDown)
    assert _is_gone(engine.pid)


@pytest.mark.anyio
async def test_a_cancelled_start_leaves_no_process(folder: Path) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())

    async def start() -> None:
        async with open_engine(locate(str(folder)), ANSWERS, SETTINGS):
            pass

    before = children()
    starting = asyncio.create_task(start())
    await asyncio.sleep(0.3)
    spawned = list(children() - before)
    starting.cancel()
    await asyncio.wait([starting])

    assert len(spawned) == 1
    assert _is_gone(int(spawned[0]))


@pytest.mark.slow
@pytest.mark.parametrize("loading", [True, False], ids=["while it loads", "when it is ready"])
def test_the_worker_ends_when_its_parent_is_killed(folder: Path, loading: bool) -> None:
    code = f"""
        import asyncio, os
        from rankd.models.checkpoint import locate
        from rankd.engines.native.process import WorkerProcess
        from rankd.engines.native.engine import _worker_config
        from rankd.config.settings import Settings
        from rankd.types import AnswerTokenIds

        async def serve():
            settings = Settings(device="cpu", threads=1)
            config = _worker_config(locate({str(folder)!r}), AnswerTokenIds({YES}, {NO}), settings)
            worker = await WorkerProcess.spawn(config)
            if not {loading}:
                await worker.wait_until_ready()
            print(worker.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(serve())
    """
    program = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()

    assert _ends(worker)


@pytest.mark.anyio
async def test_a_missing_tensor_is_one_sentence(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", hidden=8, head_dim=4, mlp=8, tokenizer=False)
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )

    problem = await _failed_start(folder)

    assert isinstance(problem, BadModel)
    assert str(problem) == "the weights lack model.layers.2.input_layernorm.weight"


@pytest.mark.anyio
async def test_an_unsupported_configuration_is_refused_before_the_worker_starts(
    folder: Path,
) -> None:
    checkpoint = locate(str(folder))
    checkpoint.config["attention_bias"] = True

    with pytest.raises(BadModel, match="biases in attention"):
        async with open_engine(checkpoint, ANSWERS, SETTINGS):
            pytest.fail("it opened")


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_missing_device_is_named(folder: Path) -> None:
    problem = await _failed_start(folder, Settings(device="npu"))

    assert isinstance(problem, BadSettings)
    assert "device = 'npu', but torch" in str(problem)


@pytest.mark.anyio
async def test_a_worker_without_torch_says_how_to_install_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    problem = await _failed_start(folder)

    assert str(problem).startswith("the native engine cannot start (no torch here): ")
    assert str(problem).endswith("[native]'")


@pytest.mark.anyio
async def test_a_worker_that_dies_during_the_start_is_a_setup_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    problem = await _failed_start(folder)

    assert str(problem) == (
        "the native engine's process was killed by SIGKILL (out of memory?) "
        "before the model was loaded"
    )


def _variables(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.anyio
async def test_the_worker_limits_onednns_caches_unless_they_are_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "77")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    async with open_engine(locate(str(folder)), ANSWERS, SETTINGS) as engine:
        variables = _variables(engine.pid)

    assert b"LRU_CACHE_CAPACITY=77" in variables
    assert b"ONEDNN_PRIMITIVE_CACHE_CAPACITY=128" in variables
