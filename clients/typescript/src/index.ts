/** A client for rankd; see the class `Rankd`. */

export { Rankd, type BatchOptions, type RankdOptions } from "./client.js";
export {
  BadAnswer,
  BadRequest,
  ConnectionFailed,
  ConnectionLost,
  Overloaded,
  RankdError,
  ServerFault,
  TimedOut,
  Unauthorized,
  Unavailable,
  type ErrorDetails,
} from "./errors.js";
export type {
  CallOptions,
  Chunk,
  Details,
  Model,
  RelevantSpan,
  RelevantSpansOptions,
  RerankOptions,
  RerankRequest,
  RerankResponse,
  Result,
  ScoreOptions,
  ScoreResponse,
  Text,
  Usage,
} from "./wire.js";
