"""An example request for each dialect, and a path that accepts it."""

from __future__ import annotations

from typing import Any

from rankd.dialects.base import Dialect


def example(dialect: Dialect) -> dict[str, Any]:
    """The example body of /openapi.json."""
    return dict(dialect.Request.model_json_schema()["example"])


def home(dialect: Dialect, model: str = "some-id") -> str:
    """A path under the dialect's own prefix; some contain a model name."""
    path = [*dialect.mounted, *dialect.paths][0]
    return dialect.prefix + path.replace("{model:path}", model)
