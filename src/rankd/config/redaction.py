"""Removes passwords, keys and tokens from values before they are shown or logged."""

from __future__ import annotations

import re
from typing import Any

# Names of what opens a door, in any spelling: apiKey, HF_TOKEN, aws_secret_access_key, X-Api-Key.
# Rather too many: `classifier_from_token` is one of them, `max_tokens` is not.
SECRET_NAME = re.compile(
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


def redacted(name: str, value: Any) -> Any:
    """A value with whatever opens a door replaced by stars."""
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
