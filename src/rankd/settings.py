"""Every knob once: name, type, default, unit, consequence.

One line makes the flag (`--max-tokens`), the environment variable
(`RANKD_MAX_TOKENS`) and the key of the TOML file (`max_tokens`). Flag beats
environment beats file beats default. A name nobody knows is an error that
names the nearest one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankd.errors import BadSettings

ENV_PREFIX = "RANKD_"
CONFIG_VARIABLE = "RANKD_CONFIG"  # What --config is in a container.

# Kubernetes puts these into every container beside a Service called "rankd":
# RANKD_SERVICE_HOST, RANKD_SERVICE_PORT_HTTP, RANKD_PORT_8000_TCP_ADDR, RANKD_PORT=tcp://...
_SERVICE_LINK = re.compile(r"RANKD_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))")

# What `rankd hash-key` prints.
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}")

# What a browser sends: no path and no slash at the end.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


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
        8192, ge=128, description="Tokens of one pair, template included; documents are cut to fit."
    )
    batch_tokens: int = Field(
        1024, ge=16, description="Tokens in one step of the native engine; more costs memory."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the native engine; 0 takes all.")
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
    max_instruction_tokens: int = Field(
        512, ge=16, description="Tokens of one instruction; more is a 400."
    )
    instruction: str = Field(
        "Given a web search query, retrieve relevant passages that answer the query",
        min_length=1,
        description="What relevance means when the request does not say.",
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
    access_log: bool = Field(True, description="One log line for each request.")

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

    @field_validator("vllm_args", "api_keys", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        """Flags and variables are text."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as problem:
            raise ValueError(f"not JSON: {problem}") from None


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Settings from flags, environment and file, in that order of precedence.

    Args:
        flags: only what was given on the command line, by field name.
        environment: `os.environ` when absent.
        config: a TOML file of top-level keys, and `[vllm]` for `vllm_args`.

    Raises:
        BadSettings: an unknown name, or a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    for given in sources(flags, environment, config).values():
        values |= given
    try:
        return Settings(**values)
    except ValidationError as problem:
        raise BadSettings(_first_sentence(problem)) from None


def sources(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """What each place says, by its name, the weakest first; arguments as those of `load`."""
    environment = os.environ if environment is None else environment
    if config is None and (named := environment.get(CONFIG_VARIABLE)):
        config = Path(named)
    return {
        str(config): _from_file(config),
        "environment": _from_environment(environment),
        "flag": dict(flags),
    }


def shown(settings: Settings, given: Mapping[str, Mapping[str, Any]]) -> str:
    """Settings as a file for --config, secrets blotted out, and where each comes from.

    Args:
        given: the `sources` they were loaded from.
    """
    lines = []
    for name, value in settings.model_dump(mode="json", exclude={"vllm_args"}).items():
        origin = next((place for place in reversed(list(given)) if name in given[place]), "default")
        text = f"# {name} =" if value is None else f"{name} = {_toml(blotted(name, value))}"
        lines.append(f"{text}  # {origin}")
    lines += ["", "[vllm]"]
    lines += [
        f"{json.dumps(name)} = {_toml(blotted(name, value))}"
        for name, value in settings.vllm_args.items()
        if value is not None
    ]
    return "\n".join(lines)


# Names of what opens a door, in any spelling: apiKey, HF_TOKEN, aws_secret_access_key, X-Api-Key.
# Rather too many: `classifier_from_token` is one of them, `max_tokens` is not.
_SECRET = re.compile(
    r"(api|access|private|account|signing|encryption)[_-]?keys?$|pass(w|phrase)|pwd|secret"
    r"|tokens?$(?<!_tokens)|credential|authorization|(^|[_-])auth$|cookie",
    re.IGNORECASE,
)

# The parts of a URL that hold a name and a password; a password may hold an @, too.
_USERINFO = re.compile(r"://\S*@")
# `?password=...` of a URL, and `HF_TOKEN=...`.
_ASSIGNED = re.compile(
    r"([\w.-]*(?:username|passw\w*|token|secret|api[_-]?key|access[_-]?key)=)[^&\s]*",
    re.IGNORECASE,
)


def blotted(name: str, value: Any) -> Any:
    """A value with whatever opens a door replaced by stars."""
    if _SECRET.search(name) and value is not None:
        return ["***"] * len(value) if isinstance(value, list) else "***"
    match value:
        case str():
            return _ASSIGNED.sub(r"\1***", _USERINFO.sub("://***@", value))
        case list():
            return [blotted("", item) for item in value]
        case dict():
            return {key: blotted(key, item) for key, item in value.items()}
    return value


def _toml(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(_toml(item) for item in value if item is not None)}]"
        case dict():
            pairs = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
            return f"{{ {', '.join(pairs)} }}"
    # Strings of JSON are strings of TOML, but for a character that no setting has.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def nearest(
    name: str, known: Iterable[str], spelled: Callable[[str], str] = lambda name: name
) -> str:
    """`; did you mean ...?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {spelled(near[0])}?" if near else ""


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        values = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadSettings(f"cannot read --config {config}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadSettings(f"{config} is not valid TOML: {problem}") from None
    if "vllm" in values:
        values["vllm_args"] = values.pop("vllm")
    for name in values:
        if name not in Settings.model_fields:
            hint = nearest(name, Settings.model_fields)
            raise BadSettings(f"{config}: unknown setting {name}{hint}")
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, value in environment.items():
        if variable == CONFIG_VARIABLE or not variable.startswith(ENV_PREFIX):
            continue
        if _is_service_link(variable, value):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in Settings.model_fields:
            hint = nearest(name, Settings.model_fields, spelled=lambda it: ENV_PREFIX + it.upper())
            raise BadSettings(f"unknown setting {variable}{hint}")
        values[name] = value
    return values


def _is_text(value: str) -> bool:
    """Whether it is not made of bytes of the command line that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_service_link(variable: str, value: str) -> bool:
    return bool(_SERVICE_LINK.match(variable)) or value.startswith(("tcp://", "udp://"))


def _first_sentence(problem: ValidationError) -> str:
    error = problem.errors()[0]
    name = str(error["loc"][0])
    if name not in Settings.model_fields:
        return f"unknown setting {name}{nearest(name, Settings.model_fields)}"
    reason = error["msg"][0].lower() + error["msg"][1:]
    if name == "vllm_args":
        return f"{name} = ***: {reason}"  # What cannot be read cannot be searched for tokens.
    if _SECRET.search(name) or name.endswith("_redis"):
        return f"{name}: {reason}"  # Never the secrets themselves.
    return f"{name} = {blotted('', error['input'])!r}: {reason}"
