"""Whatever is no answer.

RankdError
├── BadRequest        4xx       the request must change; `param` names what
│   └── Unauthorized  401, 403  ... by another `api_key`
├── Overloaded        429       too much at once; tried again
├── Unavailable       503       cannot score now; tried again
├── ServerFault       5xx       a bug there
├── TimedOut          504       or no answer within the caller's `timeout`
├── BadAnswer                   not what rankd answers; is the address right?
└── ConnectionFailed            nobody there, so nothing was sent; tried again
    └── ConnectionLost          it broke after that; the server may have worked on it
"""

from __future__ import annotations

from typing import ClassVar


class RankdError(Exception):
    """A call without an answer.

    Attributes:
        status: of the HTTP answer; None when there was none.
        code: the server's name for it, such as `model_not_found`.
        param: the field of the request that it is about, such as `documents[3]`.
        request_id: under which the server logged it.
        retry_after: seconds the server asked to wait.
        retried: whether clients try again by themselves before they raise it.
    """

    retried: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class BadRequest(RankdError):
    pass


class Unauthorized(BadRequest):
    pass


class Overloaded(RankdError):
    retried = True


class Unavailable(RankdError):
    retried = True


class ServerFault(RankdError):
    pass


class TimedOut(RankdError):
    pass


class BadAnswer(RankdError):
    pass


class ConnectionFailed(RankdError):
    retried = True


class ConnectionLost(ConnectionFailed):
    retried = False
