"""The counter: who speaks which JSON. One file, one company's whole wire.

- base.py      what a dialect is; wire.py and texts.py what all of them need of JSON
- union.py     on shared paths, whose dialect a body is in
- deadlines.py by when an answer is wanted, wherever a client says it
- counter.py   from a request to an answer, whatever the dialect
- paths.py     every path that is served, and what is said of it
- schema.py    what /openapi.json says of all this
"""

from rankd.dialects.registry import BESIDES, DIALECTS
from rankd.dialects.routes import (
    PREFIXES,
    documented_routers,
    error_response,
    metric_labels,
    post_routes,
    refuse_conflicts,
    route_specs,
    tags,
)

__all__ = [
    "BESIDES",
    "DIALECTS",
    "PREFIXES",
    "documented_routers",
    "error_response",
    "metric_labels",
    "post_routes",
    "refuse_conflicts",
    "route_specs",
    "tags",
]
