"""Every setting once: name, type, default, limits and description.

One field makes the flag (`--max-tokens`), the environment variable (`RANKD_MAX_TOKENS`) and the
key of the TOML file (`max_tokens`). Flags override the environment, the environment overrides
files, files override defaults, and a later file overrides an earlier one. An unknown name is an
error that names the nearest setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from rankd.config import validators
from rankd.config.experiments import Experiment, Shadow
from rankd.config.tables import Alias, Calibration, Instruction, ModelName, PresetName
from rankd.errors import BadSettings

# The tables of several files are merged, key by key.
TABLES = ("instructions", "calibration", "aliases", "key_presets")

# Arrays of tables; one of a later file replaces that of an earlier one.
LISTS = ("shadow", "ab")

_FromJson = BeforeValidator(validators.parse_json)


class Settings(BaseModel):
    """What an operator can choose. `config.show` groups the settings by topic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "builtin", description="Model to serve: builtin (small, for tests), a folder or a hub id."
    )
    revision: str | None = Field(
        None, description="Git revision of a hub model. Default: the default branch."
    )
    served_model_name: str | None = Field(
        None, min_length=1, description="Model name in the API. Default: the model's own name."
    )
    strict_model: bool = Field(
        False, description="Reject requests that name another model, with 404."
    )
    api_keys: Annotated[tuple[str, ...], _FromJson, AfterValidator(validators.check_keys)] = Field(
        (),
        repr=False,
        description="API key, or its digest from `rankd hash-key`; may be repeated. Default: none.",
    )
    api_keys_file: Path | None = Field(
        None, description="File with one API key or digest per line; reloaded when it changes."
    )
    engine: Literal["auto", "native", "vllm", "ray", "fake"] = Field(
        "auto",
        description="Engine that scores; auto: vLLM if installed and a GPU or NPU is there, "
        "else native.",
    )
    device: Literal["auto", "cpu", "cuda", "npu"] = Field(
        "auto", description="Device of the engine; auto: a GPU or NPU if there is one, else cpu."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of matrix products; auto: bfloat16 where it is faster, "
        "else float32.",
    )
    max_tokens: int = Field(
        8192,
        ge=128,
        description="Maximum tokens per pair of query and document, template included; "
        "see --truncation.",
    )
    batch_tokens: int = Field(
        1024, ge=16, description="Tokens per batch of the native engine; more takes more memory."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the native engine; 0: all cores.")
    deterministic: bool = Field(
        False,
        description="Make scores bit-identical under any load; slower, native engine on CPU only.",
    )
    engine_restarts: int = Field(
        10,
        ge=0,
        description="Engine restarts allowed in five minutes; 0: exit on the first crash.",
    )
    engine_wait_seconds: int = Field(
        30,
        ge=0,
        description="Seconds that requests wait while the engine restarts; then 503.",
    )
    engine_stuck_seconds: int = Field(
        600, ge=1, description="Seconds without a sign of life before the engine is restarted."
    )
    ray_address: str = Field(
        "auto",
        description="Ray cluster of --engine ray: HOST:PORT of its head; auto: the one that runs "
        "here.",
    )
    ray_app: Annotated[str, AfterValidator(validators.check_ray_app)] = Field(
        "rankd", description="Ray Serve application whose replicas score, with --engine ray."
    )
    vllm_args: Annotated[dict[str, Any], _FromJson] = Field(
        {},
        repr=False,
        description="Engine arguments of vLLM, under its own names, as JSON; [vllm] in the file.",
    )

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0: reachable from other machines."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free port.")
    root_path: Annotated[str, AfterValidator(validators.check_root_path)] = Field(
        "", description="Path at which a proxy serves this server, such as /rank. Default: none."
    )
    max_documents: int = Field(1000, ge=1, description="Maximum documents per request, then 413.")
    max_request_tokens: int = Field(
        0, ge=0, description="Maximum tokens to compute for one request, then 413; 0: unlimited."
    )
    max_waiting_requests: int = Field(
        800, ge=0, description="Maximum requests in flight, then 429; 0: unlimited."
    )
    max_waiting_tokens: int = Field(
        8_000_000,
        ge=0,
        description="Maximum tokens waiting to be scored, then 429; 0: unlimited. "
        "Bounds the wait: tokens / speed.",
    )
    key_requests_per_minute: int = Field(
        0, ge=0, description="Maximum requests per minute and key, then 429; 0: unlimited."
    )
    key_tokens_per_minute: int = Field(
        0, ge=0, description="Maximum tokens computed per minute and key, then 429; 0: unlimited."
    )
    key_concurrency: int = Field(
        0, ge=0, description="Maximum requests in flight per key, then 429; 0: unlimited."
    )
    limits_redis: str | None = Field(
        None,
        repr=False,
        description="redis:// URL, to enforce the limits per minute across servers.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Maximum bytes of a request body, then 413. All bodies in memory: 16 times it.",
    )
    max_response_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        description="Maximum bytes of an answer that repeats documents; beyond it 413.",
    )
    read_timeout_seconds: float = Field(
        60,
        gt=0,
        description="Seconds for a whole request to arrive, and to read 64 KiB of an answer.",
    )
    cors_origins: Annotated[
        tuple[str, ...],
        BeforeValidator(validators.split_commas),
        AfterValidator(validators.check_origins),
    ] = Field(
        (), description="Allowed CORS origins, comma-separated; * allows all. Default: CORS off."
    )
    allowed_hosts: Annotated[
        tuple[str, ...],
        BeforeValidator(validators.split_commas),
        AfterValidator(validators.check_hosts),
    ] = Field(
        (),
        description="Accepted Host names, by commas; * allows all. "
        "Default: localhost if open on loopback.",
    )
    ssl_certfile: Path | None = Field(
        None, description="TLS certificate chain in PEM; turns HTTPS on."
    )
    ssl_keyfile: Path | None = Field(
        None, description="Private key in PEM. Default: in --ssl-certfile."
    )
    ssl_keyfile_password: str | None = Field(
        None, repr=False, description="Password of an encrypted private key."
    )
    ssl_ca_certs: Path | None = Field(
        None, description="CA certificates in PEM; clients must present a certificate (mTLS)."
    )
    truncation: Literal["cut", "refuse", "chunk"] = Field(
        "cut",
        description="Documents that are too long: cut, refuse (400), or chunk: the best chunk "
        "counts.",
    )
    instruction: str = Field(
        "Given a web search query, retrieve relevant passages that answer the query",
        min_length=1,
        description="Instruction for requests that have none: what counts as relevant.",
    )
    instructions: Annotated[dict[PresetName, Instruction], _FromJson] = Field(
        {},
        description="Presets: instructions by name, as JSON; [instructions] in the file.",
    )
    client_prompts: Literal["unwrap", "warn", "refuse"] = Field(
        "unwrap",
        description="Qwen3-Reranker's prompt around query and documents: unwrap, warn, or refuse "
        "(400).",
    )
    calibration: Annotated[dict[str, Calibration], _FromJson] = Field(
        {},
        description="Score threshold and Platt scaling per preset, as JSON; [calibration.NAME] in "
        "the file.",
    )
    aliases: Annotated[dict[ModelName, Alias], _FromJson] = Field(
        {},
        description="More model names with their own defaults, as JSON; [aliases.NAME] in the "
        "file.",
    )
    key_presets: Annotated[dict[str, str], _FromJson] = Field(
        {},
        description="Preset per key name of --api-keys-file, as JSON; [key_presets] in the file.",
    )
    shadow: Annotated[tuple[Shadow, ...], _FromJson] = Field(
        (),
        description="Shares of requests to score a second time and compare, as JSON; [[shadow]] in "
        "the file.",
    )
    ab: Annotated[tuple[Experiment, ...], _FromJson] = Field(
        (),
        description="A/B tests: shares of callers that get a preset or an alias, as JSON; [[ab]] "
        "in the file.",
    )
    cache_mb: int = Field(
        64, ge=0, description="Memory for the score cache in MiB; 0: no cache in memory."
    )
    cache_redis: str | None = Field(
        None, repr=False, description="redis:// URL, to share the score cache between servers."
    )
    self_check: Literal["strict", "warn", "off"] = Field(
        "strict", description="Score known pairs at start; strict: exit if the scores are wrong."
    )
    ui: bool = Field(True, description="Serve the web page /ui.")
    batch_dir: Path | None = Field(
        None,
        description="Directory of batch jobs and their files, one per server. Default: no Batch "
        "API.",
    )
    batch_file_bytes: int = Field(
        200 * 1024 * 1024,
        ge=1024,
        description="Maximum bytes of one uploaded file, then 413. All files: 50 times it.",
    )
    batch_days: int = Field(
        30, ge=1, description="Days until batch jobs and their files are deleted."
    )
    timeout_ms: int = Field(
        0,
        ge=0,
        le=86_400_000,
        description="Milliseconds until a request is a 504, unless it says so itself; 0: none.",
    )
    drain_seconds: int = Field(
        30, ge=0, description="Seconds to finish admitted requests after SIGTERM."
    )
    drain_delay_seconds: int = Field(
        0, ge=0, description="Minimum seconds to answer with 503 after SIGTERM, before the exit."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log format; auto: text on a terminal, else JSON lines."
    )
    log_texts: bool = Field(
        False, description="Log queries, instructions and documents; for debugging only."
    )
    access_log: bool = Field(True, description="Log one line per request.")
    otel: bool = Field(
        False,
        description="Export traces with OTLP over HTTP; configured by OTEL_* variables.",
    )

    @field_validator("calibration")
    @classmethod
    def _check_calibrations(
        cls, tables: dict[str, Calibration], info: ValidationInfo
    ) -> dict[str, Calibration]:
        validators.check_calibrations(tables, info.data)
        return tables

    @field_validator("aliases")
    @classmethod
    def _check_alias_presets(
        cls, tables: dict[str, Alias], info: ValidationInfo
    ) -> dict[str, Alias]:
        presets = {name: table.preset for name, table in tables.items() if table.preset is not None}
        validators.check_presets(presets, info.data)
        return tables

    @field_validator("key_presets")
    @classmethod
    def _check_key_presets(cls, presets: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        validators.check_presets(presets, info.data)
        return presets

    @field_validator("shadow", "ab")
    @classmethod
    def _check_experiments(cls, tables: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        validators.check_experiments(tables, info.data)
        return tables

    def instruction_named(self, name: str) -> str:
        """The text of a preset, or of the server's own instruction.

        Raises:
            BadSettings: there is no preset of that name; names the nearest.
        """
        try:
            return validators.instruction_named(name, {**vars(self)})
        except ValueError as problem:
            raise BadSettings(str(problem)) from None
