/** The client class and its options. */

import { ask } from "./call.js";
import { ConnectionFailed, RankdError, TimedOut, Unavailable } from "./errors.js";
import {
  modelList,
  ready,
  rerankBody,
  rerankResponse,
  scoreBody,
  scoreResponse,
  type CallOptions,
  type Model,
  type RerankOptions,
  type RerankRequest,
  type RerankResponse,
  type ScoreOptions,
  type ScoreResponse,
  type Text,
} from "./wire.js";

export interface RankdOptions {
  /** May have a path; a final `/v1` is optional. Default: `http://127.0.0.1:8000`. */
  baseUrl?: string | undefined;
  /** Sent as `Authorization: Bearer`. */
  apiKey?: string | undefined;
  /** Milliseconds for one call, retries included. Default: 60,000. */
  timeout?: number | undefined;
  /** Maximum retries of one call. Default: 2. */
  retries?: number | undefined;
  /** The model's name in requests. Default: the served model. */
  model?: string | undefined;
  /** Sent with every request. */
  headers?: Record<string, string> | undefined;
}

export interface BatchOptions {
  /** Maximum requests in flight. Default: 8. */
  concurrency?: number | undefined;
  /** Aborts the whole batch. */
  signal?: AbortSignal | undefined;
}

/** A client for one rankd server. Every method throws a `RankdError` if there is no answer. */
export class Rankd {
  readonly #base: string;
  readonly #headers: Record<string, string>;
  readonly #timeout: number;
  readonly #retries: number;
  readonly #model: string | undefined;

  constructor(options: RankdOptions = {}) {
    this.#base = address(options.baseUrl ?? "http://127.0.0.1:8000");
    this.#timeout = options.timeout ?? 60_000;
    this.#retries = options.retries ?? 2;
    this.#model = options.model;
    this.#headers = {
      ...(options.apiKey ? { Authorization: `Bearer ${options.apiKey.trim()}` } : {}),
      ...options.headers,
    };
  }

  /** Ranks documents by their relevance to a query, best first. */
  async rerank(
    query: string,
    documents: Iterable<Text>,
    options: RerankOptions = {},
  ): Promise<RerankResponse> {
    return this.#rerank({ ...options, query, documents });
  }

  /** Scores documents against one query, or each document against its own query. */
  async score(
    queries: string | Iterable<string>,
    documents: Text | Iterable<Text>,
    options: ScoreOptions = {},
  ): Promise<ScoreResponse> {
    const body = scoreBody(queries, documents, options, this.#model);
    return this.#post("/v1/score", body, scoreResponse, options);
  }

  /** Sends several rerank requests; returns an answer or an error for each, in their order. */
  async batch(
    requests: Iterable<RerankRequest>,
    { concurrency = 8, signal }: BatchOptions = {},
  ): Promise<(RerankResponse | RankdError)[]> {
    if (!(concurrency >= 1)) {
      throw new RangeError(`concurrency must be at least 1, not ${concurrency}`);
    }
    const outcomes: (RerankResponse | RankdError)[] = [];
    const waiting = numbered(requests);
    const work = async () => {
      for (let next = waiting.next(); !next.done; next = waiting.next()) {
        const [place, request] = next.value;
        outcomes[place] = await this.#rerank(request, signal).catch(rankdErrorOnly);
      }
    };
    try {
      await Promise.all(Array.from({ length: Math.floor(concurrency) }, work));
    } finally {
      waiting.return(); // After a throw the other workers finish their current request and stop.
    }
    return outcomes;
  }

  /** The served models. */
  async models(options: CallOptions = {}): Promise<Model[]> {
    return this.#get("/v1/models", modelList, options, this.#retries);
  }

  /** Whether the server can score now; sends one request without retries. */
  async health(options: CallOptions = {}): Promise<boolean> {
    try {
      return await this.#get("/readyz", ready, options, 0);
    } catch (problem) {
      if ([Unavailable, TimedOut, ConnectionFailed].some((no) => problem instanceof no)) {
        return false;
      }
      throw problem;
    }
  }

  #rerank(request: RerankRequest, whole?: AbortSignal): Promise<RerankResponse> {
    const body = rerankBody(request, this.#model);
    return this.#post("/v1/rerank", body, rerankResponse, request, whole);
  }

  #post<T>(
    path: string,
    body: object,
    read: (answer: unknown) => T,
    options: CallOptions,
    whole?: AbortSignal,
  ): Promise<T> {
    return ask({
      method: "POST",
      url: this.#base + path,
      headers: { "Content-Type": "application/json", ...this.#headers },
      body: JSON.stringify(body),
      read,
      timeout: options.timeout ?? this.#timeout,
      retries: this.#retries,
      signals: [options.signal, whole],
    });
  }

  #get<T>(
    path: string,
    read: (answer: unknown) => T,
    options: CallOptions,
    retries: number,
  ): Promise<T> {
    return ask({
      method: "GET",
      url: this.#base + path,
      headers: this.#headers,
      read,
      timeout: options.timeout ?? this.#timeout,
      retries,
      signals: [options.signal],
    });
  }
}

function* numbered<T>(values: Iterable<T>): Generator<[number, T], void, void> {
  let place = 0;
  for (const value of values) {
    yield [place++, value];
  }
}

function rankdErrorOnly(problem: unknown): RankdError {
  if (problem instanceof RankdError) {
    return problem;
  }
  throw problem;
}

function address(baseUrl: string): string {
  if (!/^https?:\/\//.test(baseUrl) || !URL.canParse(baseUrl)) {
    throw new TypeError(`baseUrl must look like http://127.0.0.1:8000, not ${baseUrl}`);
  }
  return baseUrl.replace(/\/+$/, "").replace(/\/v1$/, "");
}
