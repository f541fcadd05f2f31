"""Reads the rotary embedding of a Qwen3 model from its `config.json`, as transformers 5 does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rankd.errors import BadModel

# Without `rope_theta`, transformers computes with this.
_DEFAULT_THETA = 10_000.0

# Type -> the keys that it needs besides `rope_theta`.
_NEEDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
# Other libraries' parameters of YaRN.
_NOT_OF_TRANSFORMERS = ("attn_factor", "extrapolation_factor", "apply_yarn_scaling")

_NUMBERS = (
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
)


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """The rotary embedding.

    Attributes:
        type: `default`, `linear`, `dynamic`, `yarn` or `llama3`.
        theta: base of the frequencies.
        original_max_tokens: positions that the model had before it was extended.
        max_tokens: longest prompt, in tokens.
        options: the parameters as config.json has them, such as `factor` and `beta_fast`.
    """

    type: str
    theta: float
    original_max_tokens: int
    max_tokens: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_scaled(self) -> bool:
        return self.type != "default"

    def __str__(self) -> str:
        factor = self.options.get("factor")
        times = f" times {factor:g}" if factor is not None else ""
        return (
            f"{self.type}: {self.original_max_tokens:,} tokens{times}; "
            f"prompts of up to {self.max_tokens:,}"
        )


def read_rope(config: dict[str, Any]) -> RopeScaling:
    """The rotary embedding that transformers 5 computes for this configuration.

    Like there, `rope_scaling` (transformers 4) wins over `rope_parameters` (transformers 5).

    Raises:
        BadModel: the type is unsupported, a parameter is missing or malformed, or the two
            objects disagree so that the frequencies would be wrong.
    """
    options = _options(config)
    kind = options.get("rope_type", options.get("type", "default"))
    _refuse_unsupported(kind, options)
    max_tokens = int(config.get("max_position_embeddings", 32768))
    original = int(
        config.get("original_max_position_embeddings")
        or options.get("original_max_position_embeddings")
        or max_tokens
    )
    if kind == "yarn":
        max_tokens = int(original * _yarn_factor(options, max_tokens, original))
    return RopeScaling(kind, _theta(config, options), original, max_tokens, options)


def _options(config: dict[str, Any]) -> dict[str, Any]:
    for name in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(name) or {}, dict):
            raise BadModel(f"config.json: {name} must be an object, not {config[name]!r}")
    options: dict[str, Any] = config.get("rope_scaling") or config.get("rope_parameters") or {}
    nested = [key for key, value in options.items() if isinstance(value, dict)]
    if nested:
        raise BadModel(
            f"config.json has rope_parameters for layers of type {', '.join(nested)}; "
            "a Qwen3 model has one rotary embedding for all layers"
        )
    for name in _NUMBERS:
        value = options.get(name)
        if value is not None:
            _positive(name, value)
    return options


def _yarn_factor(options: dict[str, Any], max_tokens: int, original: int) -> float:
    factor = options["factor"]
    return float(max_tokens / original if factor is None else factor)


def _refuse_unsupported(kind: Any, options: dict[str, Any]) -> None:
    if kind not in _NEEDS:
        raise BadModel(
            f"config.json asks for rotary scaling of type {kind!r}; "
            f"rankd computes {', '.join(_NEEDS)}"
        )
    missing = [name for name in _NEEDS[kind] if name not in options]
    if missing:
        raise BadModel(f"config.json: rotary scaling of type {kind!r} lacks {', '.join(missing)}")
    unread = [name for name in _NOT_OF_TRANSFORMERS if options.get(name) is not None]
    if unread:
        raise BadModel(
            f"config.json has {', '.join(unread)} in its rotary scaling, which transformers does "
            "not read; remove it, or use attention_factor"
        )
    if options.get("partial_rotary_factor", 1.0) != 1.0:
        raise BadModel(
            "config.json has a partial_rotary_factor; a Qwen3 model rotates whole heads, "
            "so remove it"
        )


def _theta(config: dict[str, Any], options: dict[str, Any]) -> float:
    if "rope_theta" in options:
        return _positive("rope_theta", options["rope_theta"])
    # Transformers does not look into `rope_parameters` when there is a `rope_scaling`, and would
    # compute with 10,000. No Qwen3 model was trained so.
    unread = (config.get("rope_parameters") or {}).get("rope_theta")
    if "rope_theta" not in config and unread not in (None, _DEFAULT_THETA):
        raise BadModel(
            f"config.json has rope_scaling without rope_theta, and rope_theta = {unread} in "
            "rope_parameters, which transformers leaves unread beside rope_scaling; copy "
            "rope_theta into rope_scaling"
        )
    return _positive("rope_theta", config.get("rope_theta", _DEFAULT_THETA))


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise BadModel(f"config.json: {name} must be a positive number, not {value!r}")
    return float(value)
