"""Limits of time that hold on slow machines too.

A test that proves that something does not take quadratic time, or does not hold the event loop,
compares its time with that of a fixed piece of work, measured at the same moment.
"""

from __future__ import annotations

import json
import sys
import time

_TEXT = "[" + ",".join(["[]"] * 240_000) + "]"

# Seconds that reading _TEXT takes on the machine for which the limits were written.
_REFERENCE = 0.03

# The measurement of coverage calls a function for each line of rankd.
_TRACED = 3


def scaled(seconds: float) -> float:
    """Seconds that this machine takes now for what takes `seconds` on the reference machine."""
    slowness = max(1.0, max(_reading() for _ in range(3)) / _REFERENCE)
    return seconds * slowness * (_TRACED if sys.gettrace() else 1)


def _reading() -> float:
    began = time.perf_counter()
    json.loads(_TEXT)
    return time.perf_counter() - began
