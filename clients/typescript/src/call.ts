/** One call: its attempts and the waits between them. */

import {
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
} from "./errors.js";

// Milliseconds before the first retry; the wait doubles for each further one, up to LONGEST_WAIT.
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8_000;
const LONGEST_RETRY_AFTER = 30_000;

export interface Call<T> {
  method: "GET" | "POST";
  url: string;
  headers: Record<string, string>;
  body?: string;
  /** Converts the answer's JSON to the result; throws a TypeError if it has another shape. */
  read: (answer: unknown) => T;
  /** Milliseconds for all attempts. */
  timeout: number;
  /** Maximum retries after the first attempt. */
  retries: number;
  /** Each of these signals aborts the call. */
  signals: readonly (AbortSignal | undefined)[];
}

/**
 * Sends a request and retries it until it is answered, cannot be retried, or times out.
 *
 * @throws RankdError, or the reason of an aborted signal.
 */
export async function ask<T>(call: Call<T>): Promise<T> {
  const end = performance.now() + call.timeout;
  const late = new TimedOut(`no answer from ${call.url} within ${call.timeout} ms`);
  const { signal, release } = joined(call.signals, call.timeout, late);
  try {
    for (let tried = 0; ; tried++) {
      try {
        return await attempt(call, signal);
      } catch (problem) {
        if (!(problem instanceof RankdError) || !problem.retried || tried >= call.retries) {
          throw problem;
        }
        const wait = pause(tried, problem.retryAfter);
        if (performance.now() + wait >= end) {
          throw problem;
        }
        await sleep(wait, signal);
      }
    }
  } finally {
    release();
  }
}

async function attempt<T>(call: Call<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let reply: Response;
  let text: string;
  try {
    reply = await fetch(call.url, {
      method: call.method,
      headers: call.headers,
      redirect: "manual",
      signal,
      ...(call.body === undefined ? {} : { body: call.body }),
    });
    text = await reply.text();
  } catch (problem) {
    signal.throwIfAborted();
    throw broken(call.url, problem);
  }
  if (reply.status !== 200) {
    throw refusal(call.url, reply, text);
  }
  try {
    return call.read(JSON.parse(text));
  } catch {
    throw new BadAnswer(`${call.url} answered what rankd never does: ${excerpt(text)}`, {
      status: reply.status,
      requestId: reply.headers.get("X-Request-Id") ?? undefined,
    });
  }
}

/** Combines the signals and the timeout. AbortSignal.any would leak: long-lived signals keep it. */
function joined(
  signals: readonly (AbortSignal | undefined)[],
  timeout: number,
  late: RankdError,
): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(late), Math.min(timeout, 2 ** 31 - 1));
  const listeners = signals
    .filter((signal) => signal !== undefined)
    .map((signal) => {
      const abort = () => controller.abort(signal.reason);
      if (signal.aborted) {
        abort();
      }
      signal.addEventListener("abort", abort);
      return () => signal.removeEventListener("abort", abort);
    });
  const release = () => {
    clearTimeout(timer);
    listeners.forEach((remove) => remove());
  };
  return { signal: controller.signal, release };
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** Milliseconds before the next attempt, with random jitter so that clients do not retry together. */
function pause(tried: number, retryAfter: number | undefined): number {
  if (retryAfter !== undefined) {
    return Math.min(retryAfter * 1000, LONGEST_RETRY_AFTER) + 100 * Math.random();
  }
  return Math.min(FIRST_WAIT * 2 ** tried, LONGEST_WAIT) * (0.5 + Math.random() / 2);
}

// Error codes of Node, Deno and Bun for a failed connect. Browsers give no reason: no retry there.
const UNREACHED = new Set([
  "ECONNREFUSED",
  "ConnectionRefused",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function broken(url: string, problem: unknown): RankdError {
  const cause = problem instanceof Error && problem.cause ? problem.cause : problem;
  const { code, message } = cause as { code?: unknown; message?: unknown };
  const reason = [message, code].find((text) => typeof text === "string" && text !== "") ?? "unknown";
  return UNREACHED.has(String(code))
    ? new ConnectionFailed(`cannot connect to ${url}: ${reason}`, { cause: problem })
    : new ConnectionLost(`the connection to ${url} broke: ${reason}`, { cause: problem });
}

const BY_STATUS: Record<number, typeof RankdError> = {
  401: Unauthorized,
  403: Unauthorized,
  429: Overloaded,
  503: Unavailable,
  504: TimedOut,
};

/** The error for an answer with a status other than 200, from the server or a proxy. */
function refusal(url: string, reply: Response, text: string): RankdError {
  const { status } = reply;
  const byRange = status >= 500 ? ServerFault : status >= 400 ? BadRequest : BadAnswer;
  const said = envelope(text);
  return new (BY_STATUS[status] ?? byRange)(
    said["message"] ?? `HTTP ${status} from ${url}: ${excerpt(text)}`,
    {
      status,
      code: said["code"],
      param: said["param"],
      requestId: reply.headers.get("X-Request-Id") ?? undefined,
      retryAfter: retryAfter(reply.headers.get("Retry-After")),
    },
  );
}

/** The string fields of OpenAI's error object, or the message of another format. */
function envelope(text: string): Record<string, string | undefined> {
  let answer: any;
  try {
    answer = JSON.parse(text);
  } catch {
    return {};
  }
  const said = answer?.error || answer?.message || answer?.detail;
  const fields = typeof said === "string" ? { message: said } : (said ?? {});
  return Object.fromEntries(
    Object.entries(fields).filter((field): field is [string, string] => typeof field[1] === "string"),
  );
}

/** Seconds, from a header with a number or a date; undefined if it has neither. */
function retryAfter(value: string | null): number | undefined {
  if (value === null || value.trim() === "") {
    return undefined;
  }
  const asked = Number(value);
  const seconds = Number.isNaN(asked) ? (Date.parse(value) - Date.now()) / 1000 : asked;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

function excerpt(text: string): string {
  return text === "" ? "an empty body" : JSON.stringify(text.slice(0, 200));
}
