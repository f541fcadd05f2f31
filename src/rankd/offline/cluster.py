"""Scores files on a Ray cluster: each actor of a pool has an engine, and gets one file at a time.

Ray Data hands out the files, and gives a file to another actor when its actor has died. Every
machine needs rankd, and the files under the same paths.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import orjson

from rankd.config.settings import Settings
from rankd.engines.ray.cluster import connect
from rankd.errors import BadSettings, RankError, SetupError
from rankd.installing import install_command
from rankd.offline.file_scorer import FileScorer, open_file_scorer
from rankd.offline.options import ScoreOptions
from rankd.offline.outputs import FileJob
from rankd.offline.progress import Progress
from rankd.offline.rows import RowCounts

Result = TypeVar("Result")


@dataclass(frozen=True)
class ActorNeeds:
    """What one actor takes of the cluster.

    Attributes:
        resource: the one that bounds the number of actors: `GPU`, `NPU` or `CPU`.
        count: how much of it.
    """

    resource: str
    count: int

    @property
    def options(self) -> dict[str, Any]:
        """Under the names of Ray Data."""
        match self.resource:
            case "GPU":
                return {"num_gpus": self.count}
            case "NPU":
                return {"resources": {"NPU": self.count}}
        return {"num_cpus": self.count}


def score_on_cluster(
    settings: Settings, options: ScoreOptions, jobs: Sequence[FileJob], progress: Progress
) -> None:
    """Score the files on the cluster `options.ray`; blocks.

    Raises:
        SetupError: Ray is not installed, the cluster cannot be reached or has no room, or a file
            cannot be scored; says why.
    """
    for module in ("ray", "pandas", "pyarrow"):
        if find_spec(module) is None:
            raise BadSettings(f"--ray needs {module}: {install_command('ray')}")
    with _connected(options.ray or "auto"), _interruptible():
        import ray.data
        from ray.exceptions import RayError

        needs = actor_needs(settings, ray.cluster_resources())
        actors = options.ray_actors or _actors_that_fit(needs, ray.available_resources())
        actors = min(actors, len(jobs))
        progress.begin()
        files = ray.data.from_items([_item(job) for job in jobs], override_num_blocks=len(jobs))
        done = files.map(
            FileActor,
            fn_constructor_args=(for_actor(settings, needs), options),
            compute=ray.data.ActorPoolStrategy(size=actors),
            **needs.options,
        )
        by_name = {job.name: job for job in jobs}
        try:
            for row in done.iter_rows():
                _note(row, by_name[row["name"]], progress)
        except RayError as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise SetupError(f"the Ray cluster failed: {reason}") from None


def actor_needs(settings: Settings, cluster: Mapping[str, float]) -> ActorNeeds:
    """A device of the cluster per actor, or the CPU threads of the settings.

    Args:
        cluster: all resources of the cluster, by name.
    """
    devices = int(settings.vllm_args.get("tensor_parallel_size", 1))
    for resource, device in (("GPU", "cuda"), ("NPU", "npu")):
        is_wanted = settings.device == device or (settings.device == "auto" and resource in cluster)
        if is_wanted and settings.engine != "fake":
            return ActorNeeds(resource, devices)
    return ActorNeeds("CPU", settings.threads or 1)


def for_actor(settings: Settings, needs: ActorNeeds) -> Settings:
    """The settings of an actor: no more threads than it has CPUs, and no keys of a server."""
    changes: dict[str, Any] = {"api_keys": (), "api_keys_file": None}
    if needs.resource == "CPU":
        changes |= {"device": "cpu", "threads": needs.count}
    elif needs.count > 1:
        # In an actor vLLM would start workers in other actors, for which no devices are left.
        chosen = {"distributed_executor_backend": "mp", **settings.vllm_args}
        changes["vllm_args"] = chosen
    return settings.model_copy(update=changes)


def _actors_that_fit(needs: ActorNeeds, free: Mapping[str, float]) -> int:
    count = int(free.get(needs.resource, 0)) // needs.count
    if not count:
        raise SetupError(
            f"the Ray cluster has {free.get(needs.resource, 0):g} free {needs.resource}, and an "
            f"engine needs {needs.count}: stop what holds them, or wait with --ray-actors 1"
        )
    return count


@contextmanager
def _connected(address: str) -> Iterator[None]:
    connect(address)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # It warns that there are no bars.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the blocking call. The event loop's own handler would wait for its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _item(job: FileJob) -> dict[str, str]:
    return {"name": job.name, "source": str(job.source), "out": str(job.out)}


def _note(row: Mapping[str, Any], job: FileJob, progress: Progress) -> None:
    if row["problem"]:
        problem = SetupError(row["problem"])
        # As the class that it was raised with in the actor has it.
        problem.exit_code = row["exit_code"]  # type: ignore[misc]
        raise problem
    counts = RowCounts(**orjson.loads(row["counts"]))
    if row["was_done"]:
        progress.file_was_done(job, counts)
        return
    progress.add(counts.rows, job.source.stat().st_size)
    progress.file_done(job, counts)


class FileActor:
    """Scores files in an actor. The engine stays open between two files.

    Errors are values in the rows that it returns: Ray would repeat a call that raises, and an
    actor that cannot start.
    """

    def __init__(self, settings: Settings, options: ScoreOptions) -> None:
        # The engine's tasks go on while the actor waits for its next file.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._opening = open_file_scorer(settings, options)
        self._scorer: FileScorer | None = None
        self._problem: SetupError | RankError | None = None
        try:
            self._scorer = self._run(self._opening.__aenter__())
        except (SetupError, RankError) as problem:
            self._problem = problem

    def __call__(self, item: dict[str, str]) -> dict[str, Any]:
        job = FileJob(Path(item["source"]), Path(item["out"]), item["name"])
        outcome = {"name": job.name, "counts": "{}", "was_done": False}
        try:
            counts, was_done = self._run(self._score(job))
        except (SetupError, RankError) as problem:
            where = f"{problem} (on {socket.gethostname()})"
            return {**outcome, "problem": where, "exit_code": getattr(problem, "exit_code", 1)}
        found = {"counts": orjson.dumps(asdict(counts)).decode(), "was_done": was_done}
        return {**outcome, **found, "problem": "", "exit_code": 0}

    async def _score(self, job: FileJob) -> tuple[RowCounts, bool]:
        if self._scorer is None:
            assert self._problem is not None
            raise self._problem
        done = await self._scorer.done_before(job)
        if done is not None:
            return done, True
        return await self._scorer.score(job, lambda rows, size: None), False

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
