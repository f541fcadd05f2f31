"""Every error of rankd, its HTTP status or its exit code.

    RankError                          a request fails; becomes an HTTP response
    ├── InvalidRequest            400  the client can correct the request:
    │   ├── AuthenticationFailed  401  ... send a valid key
    │   ├── ForbiddenOrigin       403  ... come from another web page, or use another host name
    │   ├── NotFound              404  ... the path does not exist
    │   ├── UnknownModel          404  ... name a model that is served
    │   ├── WrongMethod           405  ... use another HTTP method
    │   ├── PoisonRequest         400  ... do not send it again: it crashed the engine twice
    │   ├── ReadTimeout           408  ... send the body faster
    │   ├── TooLarge              413  ... send less
    │   ├── HeadersTooLarge       431  ... send fewer or shorter headers
    │   └── UnsupportedMedia      415  ... send JSON, not compressed
    ├── TooManyRequests           429  try again after `retry_after` seconds
    ├── ClientGone                499  the client disconnected
    ├── InternalError             500  a bug in rankd
    ├── EngineDown                503  the engine cannot score and will not be restarted
    │   └── EngineRestarting      503  the engine is being restarted
    │       └── EngineDied        503  ... and had this batch when it crashed
    ├── ShuttingDown              503  the server is stopping; another server may answer
    ├── StorageDown               503  files of batch jobs cannot be written: disk full or failing
    └── DeadlineExceeded          504  not everything was scored within the request's timeout
    SetupError                         the server cannot start; one message, no traceback
    ├── BadSettings          exit 2
    ├── BadModel             exit 3
    ├── PortTaken            exit 4
    └── SelfCheckFailed      exit 5

The class fixes status and code. The code that raises an error writes the message, with the
value and the limit in it. Errors are not wrapped on their way up; a dialect renders them in
its vendor's format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

# Exit code when the engine is not restarted any more, so that a supervisor restarts the server.
ENGINE_DIED = 6

# Exit code of a command that Ctrl-C ended, as shells report it: 128 + SIGINT.
INTERRUPTED = 130

# Exit codes of commands, for scripts and supervisors.
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
    """A request failed.

    Attributes:
        status: HTTP status.
        kind: the error's type in OpenAI's format.
        code: identifies the error for programs.
        message: for people; what was wrong, the value, the limit, the next step.
        param: the request field that is wrong; None if no single field is.
        retry_after: seconds to wait before a retry; None if a retry is pointless.
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


class ForbiddenOrigin(InvalidRequest):
    status = 403
    kind = "permission_error"
    code = "forbidden_origin"


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
    """The request crashed the engine twice, the second time while it ran alone.

    The status is 400 although the bug is not the client's: clients retry a 5xx
    automatically, and each retry would crash the engine for everyone else.
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
    """The engine cannot score this request or any later one."""

    status = 503
    kind = "service_unavailable_error"
    code = "engine_down"
    # A supervisor restarts the server; a large model takes longer than this to load.
    retry_after = 5


class EngineRestarting(EngineDown):
    """The engine crashed and is being restarted; a retry will succeed."""

    retry_after = 1


class EngineDied(EngineRestarting):
    """The engine died while it had this batch, which may have caused it."""


class ShuttingDown(RankError):
    status = 503
    kind = "service_unavailable_error"
    code = "shutting_down"
    # A load balancer sends the retry to another server; a single server is back soon.
    retry_after = 2


class StorageDown(RankError):
    """Files of batch jobs cannot be written."""

    status = 503
    kind = "service_unavailable_error"
    code = "storage_down"
    # An operator has to free disk space.
    retry_after = 60


class DeadlineExceeded(RankError):
    """The deadline passed before everything was scored.

    Attributes:
        logits: one for each prompt (engines) or document (ranker), in input order; None
            where it was not scored.
    """

    status = 504
    kind = "timeout_error"
    code = "deadline_exceeded"

    def __init__(self, logits: Sequence[float | None]) -> None:
        scored = sum(logit is not None for logit in logits)
        super().__init__(f"scored {scored:,} of {len(logits):,} documents in time")
        self.logits = tuple(logits)


class SetupError(Exception):
    """The server cannot start. The text is the whole message that an operator sees."""

    exit_code: ClassVar[int] = 1


class BadSettings(SetupError):
    exit_code = 2


class BadModel(SetupError):
    exit_code = 3


class PortTaken(SetupError):
    exit_code = 4


class SelfCheckFailed(SetupError):
    exit_code = 5
