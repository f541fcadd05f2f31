"""The door: pure ASGI middleware. Lets a request in, watches it, writes it down."""

from rankd.door.access import AccessLog
from rankd.door.body import WholeBody
from rankd.door.keys import KeyRing, Keys
from rankd.door.last import LastAnswers
from rankd.door.path import PlainPath

__all__ = ["AccessLog", "KeyRing", "Keys", "LastAnswers", "PlainPath", "WholeBody"]
