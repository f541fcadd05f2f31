/**
 * Whatever is no answer.
 *
 *     RankdError
 *     ├── BadRequest        4xx       the request must change; `param` names what
 *     │   └── Unauthorized  401, 403  ... by another `apiKey`
 *     ├── Overloaded        429       too much at once; tried again
 *     ├── Unavailable       503       cannot score now; tried again
 *     ├── ServerFault       5xx       a bug there
 *     ├── TimedOut          504       or no answer within the caller's `timeout`
 *     ├── BadAnswer                   not what rankd answers; is the address right?
 *     └── ConnectionFailed            nobody there, so nothing was sent; tried again
 *         └── ConnectionLost          it broke after that; the server may have worked on it
 */

export interface ErrorDetails {
  /** Of the HTTP answer; absent when there was none. */
  status?: number | undefined;
  /** The server's name for it, such as `model_not_found`. */
  code?: string | undefined;
  /** The field of the request that it is about, such as `documents[3]`. */
  param?: string | undefined;
  /** Under which the server logged it. */
  requestId?: string | undefined;
  /** Seconds the server asked to wait. */
  retryAfter?: number | undefined;
  /** What it was caused by. */
  cause?: unknown;
}

/** A call without an answer. */
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

  /** Whether the client tries again by itself before it throws this. */
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
