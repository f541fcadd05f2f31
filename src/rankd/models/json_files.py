"""Reads the JSON files of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadModel


def read_json(file: Path, kind: type = dict) -> Any:
    """The content of a file.

    Args:
        kind: dict or list, of the whole content.

    Raises:
        BadModel: it is not JSON, or of another kind; names the file.
    """
    try:
        content = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as problem:
        raise BadModel(f"{file} is not valid JSON: {problem}") from None
    if not isinstance(content, kind):
        raise BadModel(f"{file} must hold a JSON {'array' if kind is list else 'object'}")
    return content
