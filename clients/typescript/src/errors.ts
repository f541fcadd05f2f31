/**
 * The errors of the client.
 *
 *     RankdError
 *     ├── BadRequest        4xx       the request must change; `param` names the field
 *     │   └── Unauthorized  401, 403  the `apiKey` is missing or wrong
 *     ├── Overloaded        429       the server is busy; retried
 *     ├── Unavailable       503       the server cannot score now; retried
 *     ├── ServerFault       5xx       an error in the server
 *     ├── TimedOut          504       or no answer within `timeout`
 *     ├── BadAnswer                   not an answer of rankd; check `baseUrl`
 *     └── ConnectionFailed            no connection, so nothing was sent; retried
 *         └── ConnectionLost          the connection broke later; the server may have seen it
 */

export interface ErrorDetails {
  /** HTTP status; absent if there was no answer. */
  status?: number | undefined;
  /** The server's error code, such as `model_not_found`. */
  code?: string | undefined;
  /** The request's field at fault, such as `documents[3]`. */
  param?: string | undefined;
  /** The request's id in the server's log. */
  requestId?: string | undefined;
  /** Seconds to wait, from the header `Retry-After`. */
  retryAfter?: number | undefined;
  /** The underlying error. */
  cause?: unknown;
}

/** Thrown if a call has no answer; the base of all errors here. */
export class RankdError extends Error {
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.status = details.status;
    this.code = details.code;
    this.param = details.param;
    this.requestId = details.requestId;
    this.retryAfter = details.retryAfter;
  }

  /** Whether the client retries the call before it throws this. */
  get retried(): boolean {
    return false;
  }
}

export class BadRequest extends RankdError {}

export class Unauthorized extends BadRequest {}

export class Overloaded extends RankdError {
  override get retried(): boolean {
    return true;
  }
}

export class Unavailable extends RankdError {
  override get retried(): boolean {
    return true;
  }
}

export class ServerFault extends RankdError {}

export class TimedOut extends RankdError {}

export class BadAnswer extends RankdError {}

export class ConnectionFailed extends RankdError {
  override get retried(): boolean {
    return true;
  }
}

export class ConnectionLost extends ConnectionFailed {
  override get retried(): boolean {
    return false;
  }
}
