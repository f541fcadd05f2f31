"""Progress of a start: the steps that code reports, and the listener that receives them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StartupStep:
    """One step of a start, and how far it is.

    Attributes:
        step: name of the step, such as `loading builtin`.
        done, total: progress in `unit`; total 0: unknown.
        unit: `B` for bytes, otherwise a plural noun, such as `layers`.
        then: what follows when this step is done, if anything.
        draws_itself: the step writes its own progress to the terminal.
    """

    step: str
    done: int = 0
    total: int = 0
    unit: str = ""
    then: str = ""
    draws_itself: bool = False


# Receives every step; called from any thread. None: nothing shows progress.
STEP_LISTENER: ContextVar[Callable[[StartupStep], None] | None] = ContextVar(
    "STEP_LISTENER", default=None
)


def report_step(step: StartupStep) -> None:
    """Pass a step to the listener, if there is one."""
    if (listener := STEP_LISTENER.get()) is not None:
        listener(step)
