"""The APIs that rankd answers in: one file per vendor, and what they share.

- base.py             the `Dialect` contract
- registry.py         the list of dialects
- detect.py           which dialect a body is in
- routes.py           the table of POST routes
- wrong_paths.py      what a path means that is not served
- handler.py          a request from body to answer, in any dialect
- request.py          request bodies, each resolved once
- resolved.py, reply.py  a resolved request, and what answers are rendered from
- json_io.py, fields.py  tolerant reading of JSON
- error_responses.py  errors in the format of the request's dialect
- openapi.py, documented_routes.py  what /openapi.json holds
"""

from rankd.dialects.documented_routes import documented_routers, tags
from rankd.dialects.error_responses import error_response
from rankd.dialects.registry import DIALECTS, get_routers
from rankd.dialects.routes import (
    PREFIXES,
    exact_post_paths,
    metric_labels,
    post_routes,
    refuse_conflicts,
    route_specs,
)
from rankd.dialects.wrong_paths import corrected, no_such_path, wrong_method

__all__ = [
    "DIALECTS",
    "PREFIXES",
    "corrected",
    "documented_routers",
    "error_response",
    "exact_post_paths",
    "get_routers",
    "metric_labels",
    "no_such_path",
    "post_routes",
    "refuse_conflicts",
    "route_specs",
    "tags",
    "wrong_method",
]
