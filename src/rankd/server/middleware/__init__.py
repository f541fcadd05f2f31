"""ASGI middleware: request ids and access log, API keys, body limits, prefixes, drain."""

from rankd.server.middleware.access_log import AccessLogMiddleware
from rankd.server.middleware.auth import ApiKeyMiddleware, KeyRing
from rankd.server.middleware.body_limits import BodyLimitMiddleware
from rankd.server.middleware.drain import DrainMiddleware
from rankd.server.middleware.path_prefix import PathPrefixMiddleware

__all__ = [
    "AccessLogMiddleware",
    "ApiKeyMiddleware",
    "BodyLimitMiddleware",
    "DrainMiddleware",
    "KeyRing",
    "PathPrefixMiddleware",
]
