"""Removes passwords, keys and tokens from values before they are shown or logged."""

from __future__ import annotations

import re
from typing import Any

# Names of secrets in any spelling: apiKey, HF_TOKEN, aws_secret_access_key, X-Api-Key. It matches
# too much rather than too little: `classifier_from_token` matches, `max_tokens` does not.
SECRET_NAME = re.compile(
    r"(api|access|private|account|signing|encryption)[_-]?keys?$|pass(w|phrase)|pwd|secret"
    r"|tokens?$(?<!_tokens)|credential|authorization|(^|[_-])auth$|cookie",
    re.IGNORECASE,
)

# User name and password of a URL; the password may contain an @.
_USERINFO = re.compile(r"://\S*@")

# `?password=...` in a URL, and `HF_TOKEN=...`.
_ASSIGNED = re.compile(
    r"([\w.-]*(?:username|passw\w*|token|secret|api[_-]?key|access[_-]?key)=)[^&\s]*",
    re.IGNORECASE,
)


def redacted(name: str, value: Any) -> Any:
    """The value with every secret replaced by `***`.

    Args:
        name: what the value is called; the whole value of a secret name is replaced.
        value: text, a list or a dict, searched recursively; other values pass unchanged.
    """
    if SECRET_NAME.search(name) and value is not None:
        return ["***"] * len(value) if isinstance(value, list) else "***"
    match value:
        case str():
            return _ASSIGNED.sub(r"\1***", _USERINFO.sub("://***@", value))
        case list():
            return [redacted("", item) for item in value]
        case dict():
            return {key: redacted(key, item) for key, item in value.items()}
    return value
