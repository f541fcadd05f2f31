"""The JSON of `rankd check --json` and `rankd version --json`."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rankd import __version__
from rankd.cli.replica_report import ReplicaReport, difference
from rankd.engines.base import EngineInfo
from rankd.engines.devices import accelerator, cores
from rankd.engines.registry import ENGINES
from rankd.models.checkpoint import Checkpoint
from rankd.ranking.ranker import Ranker
from rankd.ranking.self_check import Outcome, failure_message
from rankd.types import sigmoid

# Libraries that scores depend on, then those of the server. Not imported: torch takes seconds.
_LIBRARIES = (
    *("torch", "torch-npu", "vllm", "vllm-ascend", "safetensors", "numpy"),
    *("tokenizers", "tiktoken", "huggingface-hub", "transformers"),
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "orjson"),
    *("redis", "python-json-logger", "opentelemetry-sdk"),
)


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnvironmentReport(_Report):
    """The machine and the installed software."""

    rankd: str = Field(description="Version of rankd.")
    folder: str = Field(description="Folder where it is installed.")
    python: str
    platform: str
    cores: int = Field(description="CPU cores that this process may use.")
    accelerator: Literal["cuda", "npu"] | None = Field(
        description="Installed driver: of a GPU (cuda) or an NPU; null: none."
    )
    libraries: dict[str, str] = Field(description="Installed versions by package.")

    @classmethod
    def here(cls) -> Self:
        return cls(
            rankd=__version__,
            folder=str(Path(__file__).parent),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=platform.platform(),
            cores=cores(),
            accelerator=accelerator(),
            libraries={name: version for name in _LIBRARIES if (version := _version(name))},
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class ModelReport(_Report):
    name: str
    path: str
    revision: str = Field(description="Changes with configuration and weights.")
    architectures: list[str]
    statement: list[str] = Field(
        [], description="What its files state of prompt and score, and what follows."
    )


class EngineReport(_Report):
    name: str = Field(json_schema_extra={"enum": [*ENGINES]})
    version: str = Field(description="Version of the library that computes; may be empty.")
    device: str
    dtype: str
    dtype_reason: str = Field("", description="Why this number format; may be empty.")
    max_tokens: int = Field(description="Maximum tokens of one pair, template included.")
    deterministic: bool
    arithmetic: str = Field(description="What the last bits of scores depend on; may be empty.")


class TemplateReport(_Report):
    """The prompt: its text, and fixed parts as token ids."""

    digest: str = Field(description="Digest of the template, as in the response header `rankd`.")
    name: str = Field(description="qwen3, or the file of the model's chat template.")
    text: str = Field(description="With {instruction}, {query} and {document}.")
    instruction: str | None = Field(description="The server's own; null: none.")
    prefix: list[int] = Field(description="Before the first text of a request.")
    suffix: list[int] = Field(description="After the last text of a request.")
    yes: int
    no: int | None = Field(description="null: the score is the logit of `yes` alone.")
    scale: float = Field(description="Factor of the logit.")


class ScoreReport(_Report):
    document: str
    logit: float | None = Field(description="log p(yes) - log p(no), in nats; null: not a number.")
    score: float | None = Field(description="0 to 1; null: not a number.")


class Expected(_Report):
    least_margin: float = Field(description="Minimum margin between `right` and `wrong`, in nats.")
    right_score_above: float | None = Field(description="null: the logit has no zero.")
    wrong_score_below: float | None = Field(description="null: the logit has no zero.")


class PairReport(_Report):
    """A query with a document that answers it and one that does not."""

    query: str
    right: ScoreReport
    wrong: ScoreReport
    margin: float | None = Field(
        description="Logit of right minus logit of wrong; null: not a number."
    )
    expected: Expected
    problem: str | None = Field(description="What is wrong with the scores; null: nothing.")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        pair, middle = outcome.pair, 0.5 if outcome.has_zero else None
        return cls(
            query=pair.query,
            right=_scored(pair.right, outcome.right),
            wrong=_scored(pair.wrong, outcome.wrong),
            margin=outcome.right - outcome.wrong,
            expected=Expected(
                least_margin=outcome.min_margin, right_score_above=middle, wrong_score_below=middle
            ),
            problem=outcome.problem,
        )


def _scored(document: str, logit: float) -> ScoreReport:
    return ScoreReport(document=document, logit=logit, score=sigmoid(logit))


class ExactnessReport(_Report):
    """The known pairs' logits compared with the native engine's in float32 on the CPU."""

    difference: float | None = Field(
        None, description="Largest difference, in nats; 0 in float32; null: not compared."
    )
    spread: float | None = Field(
        None, description="Largest minus smallest logit in float32; null: not compared."
    )
    problem: str | None = Field(None, description="Why they were not compared; null: they were.")


class CheckReport(_Report):
    """The object that `rankd check --json` prints. A version gains fields, and never loses one."""

    version: Literal[1] = Field(1, description="Version of this format.")
    verdict: Literal["right", "wrong", "failed"] = Field(
        description="right: all known pairs are right; wrong: some are wrong; failed: not scored."
    )
    exit_code: int = Field(description="Exit status of the command; table in docs/cli.md.")
    message: str = Field(description="The verdict as a sentence.")
    environment: EnvironmentReport
    model: ModelReport | None = Field(
        None, description="null if the verdict is failed; so are all fields below."
    )
    engine: EngineReport | None = None
    template: TemplateReport | None = None
    pairs: list[PairReport] | None = None
    exactness: ExactnessReport | None = None
    replicas: list[ReplicaReport] | None = Field(
        None, description="Those of --engine ray; null: another engine."
    )

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        ranker: Ranker,
        outcomes: Sequence[Outcome],
        exactness: ExactnessReport,
        replicas: Sequence[ReplicaReport] = (),
    ) -> Self:
        problem = failure_message(outcomes) or difference(replicas)
        return cls(
            verdict="wrong" if problem else "right",
            exit_code=1 if problem else 0,
            message=problem or RIGHT,
            environment=EnvironmentReport.here(),
            model=_model(checkpoint, ranker.encoder.notes),
            engine=_engine(ranker.engine.info),
            template=TemplateReport(
                digest=ranker.encoder.template,
                name=ranker.encoder.template_name,
                text=ranker.encoder.text,
                instruction=ranker.encoder.instruction,
                prefix=list(ranker.encoder.prefix),
                suffix=list(ranker.encoder.suffix),
                **ranker.encoder.answers._asdict(),
            ),
            pairs=[PairReport.of(outcome) for outcome in outcomes],
            exactness=exactness,
            replicas=[*replicas] or None,
        )

    @classmethod
    def of_failure(cls, message: str, exit_code: int) -> Self:
        return cls(
            verdict="failed",
            exit_code=exit_code,
            message=message,
            environment=EnvironmentReport.here(),
        )


RIGHT = "This set-up gives right scores."


def _model(checkpoint: Checkpoint, notes: Sequence[str]) -> ModelReport:
    return ModelReport(
        name=checkpoint.name,
        path=str(checkpoint.path),
        revision=checkpoint.revision,
        architectures=checkpoint.config["architectures"],
        statement=list(notes),
    )


def _engine(info: EngineInfo) -> EngineReport:
    return EngineReport(
        name=info.name,
        version=info.version,
        device=info.device,
        dtype=info.dtype,
        dtype_reason=info.dtype_reason,
        max_tokens=info.max_tokens,
        deterministic=info.deterministic,
        arithmetic=info.arithmetic,
    )


def schema() -> dict[str, object]:
    """The JSON Schema of `rankd check --json`, as in docs/check.schema.json."""
    fields = CheckReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **fields}
