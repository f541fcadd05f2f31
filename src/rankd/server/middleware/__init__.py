"""ASGI middleware: request ids and access log, hosts and origins, API keys, bodies, prefixes."""

from rankd.server.middleware.access_log import AccessLogMiddleware
from rankd.server.middleware.allowed_hosts import AllowedHostsMiddleware
from rankd.server.middleware.auth import ApiKeyMiddleware, KeyRing
from rankd.server.middleware.body_limits import BodyLimitMiddleware, ByteBudget
from rankd.server.middleware.path_prefix import PathPrefixMiddleware

__all__ = [
    "AccessLogMiddleware",
    "AllowedHostsMiddleware",
    "ApiKeyMiddleware",
    "BodyLimitMiddleware",
    "ByteBudget",
    "KeyRing",
    "PathPrefixMiddleware",
]
