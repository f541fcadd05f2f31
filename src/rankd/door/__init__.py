"""The door: pure ASGI middleware. Lets a request in, watches it, writes it down."""

from rankd.door.access import AccessLog
from rankd.door.body import WholeBody

__all__ = ["AccessLog", "WholeBody"]
