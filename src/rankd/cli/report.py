"""`rankd check --json` and `rankd version`: what runs here, for machines and for bug reports."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rankd import __version__
from rankd.engines.base import EngineInfo
from rankd.engines.devices import accelerator, cores
from rankd.engines.registry import ENGINES
from rankd.models.checkpoint import BUILTIN, Checkpoint, locate
from rankd.ranking.ranker import Ranker
from rankd.ranking.self_check import LEAST_MARGIN, Outcome, failure_message
from rankd.types import sigmoid

# What scores may depend on, and what serves them. Named, not imported: torch takes seconds.
_LIBRARIES = (
    *("torch", "torch-npu", "vllm", "vllm-ascend", "safetensors", "numpy"),
    *("tokenizers", "tiktoken", "huggingface-hub", "transformers"),
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "orjson"),
    *("redis", "gradio", "python-json-logger", "opentelemetry-sdk"),
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EnvironmentReport(_Part):
    """Where it ran."""

    rankd: str = Field(description="Its release.")
    folder: str = Field(description="Where it is installed.")
    python: str
    platform: str
    cores: int = Field(description="CPU cores that this process may use.")
    accelerator: Literal["cuda", "npu"] | None = Field(description="Whose driver is there.")
    libraries: dict[str, str] = Field(description="Installed releases by package.")

    @classmethod
    def here(cls) -> Self:
        return cls(
            rankd=__version__,
            folder=str(Path(__file__).parent),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=platform.platform(),
            cores=cores(),
            accelerator=accelerator(),
            libraries={name: found for name in _LIBRARIES if (found := _release(name))},
        )


def _release(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class ModelReport(_Part):
    name: str
    path: str
    revision: str = Field(description="Changes with configuration and weights.")
    architectures: list[str]


class EngineReport(_Part):
    name: str = Field(json_schema_extra={"enum": [*ENGINES]})
    version: str = Field(description="Of the library that computes, where one is named.")
    device: str
    dtype: str
    max_tokens: int = Field(description="Tokens of one pair, template included.")
    deterministic: bool
    arithmetic: str = Field(description="What the last bits depend on; may be empty.")


class TemplateReport(_Part):
    """The prompt's fixed parts, as token ids."""

    digest: str = Field(description="As in the header `rankd` of answers.")
    prefix: list[int]
    suffix: list[int]
    yes: int
    no: int


class ScoreReport(_Part):
    document: str
    logit: float | None = Field(description="log p(yes) - log p(no), in nats; null: no number.")
    score: float | None = Field(description="0 to 1; null: no number.")


class Expected(_Part):
    least_margin: float = Field(description="Nats by which `right` must be above `wrong`.")
    right_score_above: float
    wrong_score_below: float


class PairReport(_Part):
    """One question with a document that answers it and one that does not."""

    query: str
    right: ScoreReport
    wrong: ScoreReport
    margin: float | None = Field(description="Observed, in nats; null: no number.")
    expected: Expected
    problem: str | None = Field(description="What is wrong with it; null when nothing is.")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        pair = outcome.pair
        return cls(
            query=pair.query,
            right=_scored(pair.right, outcome.right),
            wrong=_scored(pair.wrong, outcome.wrong),
            margin=outcome.right - outcome.wrong,
            expected=Expected(
                least_margin=LEAST_MARGIN, right_score_above=0.5, wrong_score_below=0.5
            ),
            problem=outcome.problem,
        )


def _scored(document: str, logit: float) -> ScoreReport:
    return ScoreReport(document=document, logit=logit, score=sigmoid(logit))


class CheckReport(_Part):
    """What `rankd check --json` prints. Fields are added to a version of it, never taken away."""

    version: Literal[1] = Field(1, description="Of this format.")
    verdict: Literal["right", "wrong", "failed"] = Field(
        description="wrong: known pairs have wrong scores; failed: nothing could be scored."
    )
    exit_code: int = Field(description="What the command ends with; docs/cli.md has the table.")
    message: str = Field(description="The verdict in words, for a person.")
    environment: EnvironmentReport
    model: ModelReport | None = Field(
        None, description="null when it failed; so is all that follows."
    )
    engine: EngineReport | None = None
    template: TemplateReport | None = None
    pairs: list[PairReport] | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint, ranker: Ranker, outcomes: Sequence[Outcome]) -> Self:
        problem = failure_message(outcomes)
        return cls(
            verdict="wrong" if problem else "right",
            exit_code=1 if problem else 0,
            message=problem or RIGHT,
            environment=EnvironmentReport.here(),
            model=_model(checkpoint),
            engine=_engine(ranker.engine.info),
            template=TemplateReport(
                digest=ranker.encoder.template,
                prefix=list(ranker.encoder.prefix),
                suffix=list(ranker.encoder.suffix),
                **ranker.encoder.answers._asdict(),
            ),
            pairs=[PairReport.of(outcome) for outcome in outcomes],
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


def _model(checkpoint: Checkpoint) -> ModelReport:
    return ModelReport(
        name=checkpoint.name,
        path=str(checkpoint.path),
        revision=checkpoint.revision,
        architectures=checkpoint.config["architectures"],
    )


def _engine(info: EngineInfo) -> EngineReport:
    return EngineReport(
        name=info.name,
        version=info.version,
        device=info.device,
        dtype=info.dtype,
        max_tokens=info.max_tokens,
        deterministic=info.deterministic,
        arithmetic=info.arithmetic,
    )


def schema() -> dict[str, object]:
    """JSON Schema of `rankd check --json`; docs/check.schema.json is this."""
    made = CheckReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def versions() -> str:
    """What runs here, for a person."""
    here = EnvironmentReport.here()
    rows = {
        "rankd": f"{here.rankd} ({here.folder})",
        "builtin": f"revision {locate(BUILTIN).revision}",
        "python": f"{here.python} ({sys.executable})",
        "platform": f"{here.platform}, {here.cores} cores, {here.accelerator or 'no accelerator'}",
        **here.libraries,
    }
    widest = max(map(len, rows))
    return "\n".join(f"{name:<{widest}}  {value}" for name, value in rows.items())
