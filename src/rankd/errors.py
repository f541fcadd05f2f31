"""Everything that can go wrong, drawn before it is written.

    RankError                     answers a request
    ├── InvalidRequest      400   the caller can mend it
    │   ├── Unauthorized    401   ... by sending a key
    │   ├── NotFound        404   ... no such path
    │   ├── UnknownModel    404   ... by naming a model that is served
    │   ├── WrongMethod     405   ... by another method
    │   ├── PoisonRequest   400   ... by not sending it again: it ended the engine, twice
    │   ├── ReadTimeout     408   ... by sending sooner
    │   ├── TooLarge        413   ... by sending less
    │   ├── HeadTooLarge    431   ... by sending fewer or shorter headers
    │   └── UnsupportedMedia 415  ... by sending it plain
    ├── Overloaded          429   try again later
    ├── ClientGone          499   nobody is listening any more
    ├── InternalError       500   a bug of ours
    ├── EngineDown          503   this server cannot score any more
    │   └── EngineRestarting 503  ... but soon again
    │       └── EngineDied  503   ... and had this batch when it died
    ├── ShuttingDown        503   it ends; another may answer
    ├── StorageDown         503   the disk is full, or does not take what it should keep
    └── DeadlineExceeded    504   not ready in the time the caller gave
    SetupError                    ends the start, with a sentence and no traceback
    ├── BadSettings
    ├── BadModel
    ├── PortTaken
    └── SelfCheckFailed

A class fixes the status and the code; who raises it writes the sentence, with the
numbers in it. Errors rise untouched until a dialect puts on its company's envelope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

# An engine that is not started again ends the server, so that whoever started it starts it again.
ENGINE_DIED = 6

# What a shell reports of a command that Ctrl-C ended.
INTERRUPTED = 130

# What a command ends with, for scripts and supervisors.
EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed",
    2: "usage or settings",
    3: "model",
    4: "address",
    5: "self-check",
    ENGINE_DIED: "engine died too often",
    INTERRUPTED: "interrupted",
}


class RankError(Exception):
    """A request that cannot be answered as it was meant.

    Attributes:
        retry_after: seconds after which it may be answered; None when waiting is no use.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal_error"
    code: ClassVar[str] = "internal_error"
    retry_after: int | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(RankError):
    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class AuthenticationFailed(InvalidRequest):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class UnknownModel(InvalidRequest):
    status = 404
    code = "model_not_found"


class WrongMethod(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class ReadTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class PoisonRequest(InvalidRequest):
    """It ended the engine twice, the second time when nothing else ran.

    A 400 although the fault is ours: clients repeat a 5xx by themselves, and each
    repetition would end the engine again for everyone.
    """

    code = "poison_request"


class TooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class HeadersTooLarge(InvalidRequest):
    status = 431
    code = "request_header_fields_too_large"


class UnsupportedMedia(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class TooManyRequests(RankError):
    status = 429
    kind = "overloaded_error"
    code = "overloaded"
    retry_after = 1


class ClientGone(RankError):
    status = 499
    kind = "client_error"
    code = "client_closed_request"


class InternalError(RankError):
    pass


class EngineDown(RankError):
    """The engine cannot answer this call or any other."""

    status = 503
    kind = "service_unavailable_error"
    code = "engine_down"
    # Whoever started the server starts it again; a large model loads for longer.
    retry_after = 5


class EngineRestarting(EngineDown):
    """The engine is away but is being started again: worth trying again."""

    retry_after = 1


class EngineDied(EngineRestarting):
    """The engine died while it had this batch, which may have caused it."""


class ShuttingDown(RankError):
    status = 503
    kind = "service_unavailable_error"
    code = "shutting_down"
    # Behind a balancer another server answers at once; alone, a new one is soon there.
    retry_after = 2


class StorageDown(RankError):
    """Files of batch jobs cannot be kept."""

    status = 503
    kind = "service_unavailable_error"
    code = "storage_down"
    # An operator has to make room.
    retry_after = 60


class DeadlineExceeded(RankError):
    """The time is over, and this much was done.

    Attributes:
        logits: of each prompt, or of each document, in their order; None where it was
            not scored.
    """

    status = 504
    kind = "timeout_error"
    code = "deadline_exceeded"

    def __init__(self, logits: Sequence[float | None]) -> None:
        scored = sum(logit is not None for logit in logits)
        super().__init__(f"scored {scored:,} of {len(logits):,} documents in time")
        self.logits = tuple(logits)


class SetupError(Exception):
    """The server cannot start; its text is the whole message an operator sees."""

    exit_code: ClassVar[int] = 1


class BadSettings(SetupError):
    exit_code = 2


class BadModel(SetupError):
    exit_code = 3


class PortTaken(SetupError):
    exit_code = 4


class SelfCheckFailed(SetupError):
    exit_code = 5
