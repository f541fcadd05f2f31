"""Every knob once: name, type, default, unit, consequence.

One line makes the flag (`--max-tokens`), the environment variable
(`RANKD_MAX_TOKENS`) and the key of the TOML file (`max_tokens`). Flag beats
environment beats file beats default, and a later file an earlier one. A name
nobody knows is an error that names the nearest one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from rankd.config.suggest import nearest
from rankd.config.tables import (
    DEFAULT,
    Alias,
    Calibration,
    Instruction,
    ModelName,
    PresetName,
)
from rankd.errors import BadSettings

# What `rankd hash-key` prints.
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")


# What a browser sends: no path and no slash at the end.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


# Those of a later file are added to those of an earlier one.
TABLES = ("instructions", "calibration", "aliases", "key_presets")


class Settings(BaseModel):
    """What an operator can choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("builtin", description="builtin, a folder, or a hub id.")
    revision: str | None = Field(None, description="Hub revision; the default branch when absent.")
    served_model_name: str | None = Field(
        None,
        min_length=1,
        description="Name that clients send; the model's own name when absent.",
    )
    strict_model: bool = Field(
        False, description="Refuse requests that name another model, instead of answering them."
    )
    api_keys: tuple[str, ...] = Field(
        (),
        repr=False,
        description="Keys, or their digests from rankd hash-key, of which requests must carry "
        "one; none lets everyone in.",
    )
    api_keys_file: Path | None = Field(
        None, description="A file with one key or digest a line; read again when it changes."
    )
    engine: Literal["auto", "native", "vllm", "fake"] = Field(
        "auto", description="What scores; auto takes vLLM beside an accelerator, else native."
    )
    device: Literal["auto", "cpu", "cuda", "npu"] = Field(
        "auto", description="Where the engine computes; auto takes an accelerator."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic; auto is float32 on CPU (exact), else bfloat16."
    )
    max_tokens: int = Field(
        8192,
        ge=128,
        description="Tokens of one pair, template included; see --truncation for longer documents.",
    )
    batch_tokens: int = Field(
        1024, ge=16, description="Tokens in one step of the native engine; more costs memory."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the native engine; 0 takes all.")
    deterministic: bool = Field(
        False,
        description="Equal pairs get equal scores, to the last bit, whatever the load; native "
        "engine on CPU, slower.",
    )
    tensor_parallel: int = Field(
        1,
        ge=1,
        description="Devices that share one vLLM model, 1, 2, 4 or 8; for what fits on none.",
    )
    data_parallel: int = Field(
        1, ge=1, description="Copies of the model in vLLM, each on devices of its own, for speed."
    )
    engine_restarts: int = Field(
        10,
        ge=0,
        description="Deaths of the engine in five minutes that are survived; 0 ends at the first.",
    )
    engine_wait_seconds: int = Field(
        30, ge=0, description="Seconds that requests wait for an engine that starts again."
    )
    engine_stuck_seconds: int = Field(
        600, ge=1, description="Seconds of silence after which an engine is killed."
    )
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="Share of a device's memory that vLLM takes."
    )
    quantization: str | None = Field(
        None,
        description="What vLLM makes of 16-bit weights, such as fp8: faster, less exact.",
    )
    vllm_args: dict[str, Any] = Field(
        {},
        repr=False,
        description="Further arguments of vLLM as a JSON object; [vllm] in the file.",
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 opens it to all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_documents: int = Field(1000, ge=1, description="Documents in one request; more is a 413.")
    max_request_tokens: int = Field(
        0,
        ge=0,
        description="Tokens to compute for one request, template included; more is a 413; 0: any.",
    )
    max_waiting_requests: int = Field(
        800,  # Below `max_connections`: probes still find one, and refusals keep theirs open.
        ge=0,
        description="Requests taken in and not yet answered; more is a 429; 0: any number.",
    )
    max_waiting_tokens: int = Field(
        8_000_000,
        ge=0,
        description="Tokens admitted and not yet scored; more is a 429; 0: any number. They take "
        "some 40 bytes each; at your tokens per second this is the longest wait.",
    )
    key_requests_per_minute: int = Field(
        0, ge=0, description="Requests of one key in any minute; more is a 429; 0: any number."
    )
    key_tokens_per_minute: int = Field(
        0, ge=0, description="Tokens computed for one key in any minute; more is a 429; 0: any."
    )
    key_concurrency: int = Field(
        0, ge=0, description="Requests of one key at a time; more is a 429; 0: any number."
    )
    limits_redis: str | None = Field(
        None,
        repr=False,
        description="redis:// URL where several servers count a key's minutes together.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Bytes of one request body; more is a 413."
    )
    max_waiting_bytes: int = Field(
        512 * 1024 * 1024,
        ge=0,
        description="Bytes of all bodies that are arriving or being answered; one above 64 KiB "
        "that would take more is a 429; 0: any number.",
    )
    read_timeout_seconds: float = Field(
        60, gt=0, description="Seconds for a whole request to arrive; a slower one is a 408."
    )
    max_connections: int = Field(
        900, ge=1, description="Open connections; a request on one more is a 429."
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins whose pages may call from a browser, by commas; * is every one, "
        "none is none.",
    )
    ssl_certfile: Path | None = Field(
        None, description="Certificate, with its chain, in PEM: the server speaks HTTPS."
    )
    ssl_keyfile: Path | None = Field(
        None, description="Its private key in PEM; in the same file when absent."
    )
    ssl_keyfile_password: str | None = Field(
        None, repr=False, description="What the private key is encrypted with."
    )
    ssl_ca_certs: Path | None = Field(
        None, description="Authorities in PEM, of which a client must show a certificate."
    )
    truncation: Literal["cut", "refuse", "chunk"] = Field(
        "cut",
        description="What becomes of documents that do not fit, when the request does not say; "
        "chunk reads all of them, in chunks of which the best counts.",
    )
    truncation_side: Literal["right", "left"] = Field(
        "right", description="Where they are cut: right is the end of the text."
    )
    chunk_tokens: int = Field(
        512, ge=16, description="Tokens of one chunk, when the request does not say."
    )
    chunk_overlap: int = Field(
        64,
        ge=0,
        description="Tokens that two neighbouring chunks of that length share; at most half of it.",
    )
    max_instruction_tokens: int = Field(
        512, ge=16, description="Tokens of one instruction; more is a 400."
    )
    instruction: str = Field(
        "Given a web search query, retrieve relevant passages that answer the query",
        min_length=1,
        description="What relevance means when the request does not say.",
    )
    instructions: dict[PresetName, Instruction] = Field(
        {},
        description="Presets: instructions by name, for requests, aliases and keys, as a JSON "
        "object; [instructions] in the file.",
    )
    calibration: dict[str, Calibration] = Field(
        {},
        description="Threshold and Platt scaling of a preset, or of the default, as a JSON object; "
        "[calibration.NAME] in the file.",
    )
    aliases: dict[ModelName, Alias] = Field(
        {},
        description="Other names of the model, each with its preset, threshold and truncation, as "
        "a JSON object; [aliases.NAME] in the file.",
    )
    key_presets: dict[str, str] = Field(
        {},
        description="Presets of keys, by the names of --api-keys-file, as a JSON object; "
        "[key_presets] in the file.",
    )
    cache_mb: int = Field(
        64, ge=0, description="Memory for scores computed before, in MiB; 0 keeps none here."
    )
    cache_ttl_seconds: int = Field(3600, ge=1, description="Seconds that a computed score is kept.")
    cache_redis: str | None = Field(
        None, repr=False, description="URL of a Redis in which several servers share their scores."
    )
    self_check: Literal["strict", "warn", "off"] = Field(
        "strict", description="Score known pairs at start; strict refuses to serve wrong scores."
    )
    ui: bool = Field(
        True,
        description="Serve the web page /ui; needs rankd[ui], loaded at its first visit.",
    )
    batch_dir: Path | None = Field(
        None,
        description="Directory of batch jobs and their files, one for each server; /v1/files and "
        "/v1/batches are served only where it is set.",
    )
    batch_file_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Bytes of one uploaded file; more is a 413."
    )
    batch_lines: int = Field(
        50_000, ge=1, description="Requests in one batch job; one of more fails."
    )
    batch_stored_bytes: int = Field(
        10 * 1024**3,
        ge=1024,
        description="Bytes of all files of batch jobs, above which an upload is a 413.",
    )
    batch_days: int = Field(
        30, ge=1, description="Days that batch jobs and their files are kept, then deleted."
    )
    batch_concurrency: int = Field(
        32, ge=1, description="Requests of batch jobs that are answered at a time."
    )
    timeout_ms: int = Field(
        0,
        ge=0,
        le=86_400_000,
        description="Milliseconds for an answer when the request does not say, then 504; "
        "0 is for ever.",
    )
    drain_seconds: int = Field(
        30, ge=0, description="Seconds to finish what was admitted after SIGTERM."
    )
    drain_delay_seconds: int = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM to stay and refuse with a 503, though nothing is left "
        "to finish.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto is text on a terminal, and else JSON, one object a line."
    )
    log_texts: bool = Field(
        False, description="Log queries, instructions and documents; to look into a fault only."
    )
    access_log: bool = Field(True, description="One log line for each request.")
    otel: bool = Field(
        False,
        description="Send traces by OTLP over HTTP; OTEL_* variables say where to, how many, ...",
    )

    @field_validator("api_keys")
    @classmethod
    def _refuse_empty_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(key.strip() == key and key for key in keys):
            raise ValueError("a key must not be empty, or begin or end with a blank")
        if not all(_is_text(key) for key in keys):
            raise ValueError("a key must be text in UTF-8")
        if any(key.startswith("sha256:") and not _DIGEST.fullmatch(key) for key in keys):
            raise ValueError("sha256: must be followed by 64 hexadecimal digits")
        return keys

    @field_validator("chunk_overlap")
    @classmethod
    def _refuse_much_overlap(cls, overlap: int, info: ValidationInfo) -> int:
        most = info.data.get("chunk_tokens", 0) // 2
        if overlap > most:
            raise ValueError(f"must be at most {most}, half of chunk_tokens")
        return overlap

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Flags and variables are text."""
        if not isinstance(value, str):
            return value
        return [origin.strip() for origin in value.split(",") if origin.strip()]

    @field_validator("cors_origins")
    @classmethod
    def _refuse_what_is_no_origin(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin such as https://app.example.com")
        return origins

    @field_validator("calibration")
    @classmethod
    def _refuse_other_calibrations(
        cls, tables: dict[str, Calibration], info: ValidationInfo
    ) -> dict[str, Calibration]:
        for name, table in tables.items():
            text = _instruction_named(name, info.data)
            if table.threshold is None and table.platt is None:
                raise ValueError(f"{name} has neither a threshold nor platt")
            if table.instruction not in (None, text):
                raise ValueError(
                    f"{name} was measured with another text: {table.instruction!r}, not {text!r}"
                )
        return tables

    @field_validator("aliases")
    @classmethod
    def _refuse_unknown_presets(
        cls, tables: dict[str, Alias], info: ValidationInfo
    ) -> dict[str, Alias]:
        for name, table in tables.items():
            if table.preset is not None:
                _instruction_named(table.preset, info.data, f"{name}: ")
        return tables

    @field_validator("key_presets")
    @classmethod
    def _refuse_unknown_presets_of_keys(
        cls, presets: dict[str, str], info: ValidationInfo
    ) -> dict[str, str]:
        for key, name in presets.items():
            _instruction_named(name, info.data, f"{key}: ")
        return presets

    @field_validator("vllm_args", "api_keys", *TABLES, mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        """Flags and variables are text."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as problem:
            raise ValueError(f"not JSON: {problem}") from None

    def instruction_named(self, name: str) -> str:
        """The text of a preset, or of the server's own instruction.

        Raises:
            BadSettings: there is no preset of that name; names the nearest.
        """
        try:
            return _instruction_named(name, {**vars(self)})
        except ValueError as problem:
            raise BadSettings(str(problem)) from None


def _instruction_named(name: str, settings: Mapping[str, Any], whose: str = "") -> str:
    """Raises `ValueError` when there is no such preset."""
    presets = settings.get("instructions", {})
    if name == DEFAULT:
        return str(settings["instruction"])
    if name not in presets:
        hint = nearest(name, [*presets, DEFAULT])
        raise ValueError(f"{whose}{name!r} is neither in [instructions] nor {DEFAULT!r}{hint}")
    return str(presets[name])


def _is_text(value: str) -> bool:
    """Whether it is not made of bytes of the command line that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in value)
