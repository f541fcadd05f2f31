"""How far a start has come, for whoever watches it.

What loads tells of it wherever it runs, in a thread too; only the command line listens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartupStep:
    """One step of a start.

    Attributes:
        step: such as `loading builtin`.
        done, total: in `unit`; a total of 0 is not known.
        unit: `B` for bytes, else a plural, such as `layers`.
        then: what still comes when this step is done.
        aloud: it writes to the terminal itself how far it is.
    """

    step: str
    done: int = 0
    total: int = 0
    unit: str = ""
    then: str = ""
    draws_itself: bool = False


# Who wants to hear of it; called from any thread.
STEP_LISTENER: ContextVar[Callable[[StartupStep], None] | None] = ContextVar(
    "WATCHER", default=None
)


def report_step(loading: StartupStep) -> None:
    if (watcher := STEP_LISTENER.get()) is not None:
        watcher(loading)
