"""The client's errors.

RankdError
├── BadRequest        4xx       the request is wrong; `param` names the field
│   └── Unauthorized  401, 403  `api_key` is missing or wrong, or the server refuses the host
├── Overloaded        429       too many requests; retried
├── Unavailable       503       the server cannot score now; retried
├── ServerFault       5xx       a bug in the server or a proxy
├── TimedOut          504       or no response within the call's `timeout`
├── BadAnswer                   not a response of rankd; is `base_url` right?
└── ConnectionFailed            not connected, so nothing was sent; retried
    └── ConnectionLost          lost while sending or receiving; the server may have scored
"""

from __future__ import annotations

from typing import ClassVar


class RankdError(Exception):
    """A call failed.

    Attributes:
        status: of the HTTP response; None without a response.
        code: the server's error code, such as `model_not_found`.
        param: the field of the request that is wrong, such as `documents[3]`.
        request_id: the id of the request in the server's log.
        retry_after: seconds to wait, as the server asked.
        retried: whether the client retries before it raises this class.
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
