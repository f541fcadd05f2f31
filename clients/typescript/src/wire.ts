/** Requests and answers: camelCase for the caller, snake_case for the server. */

/** A document: a text, or an object with the text in `text` or in the `rankFields`. */
export type Text = string | { readonly [field: string]: unknown };

/** Options of every call. */
export interface CallOptions {
  /** Milliseconds for the call, retries included. */
  timeout?: number | undefined;
  /** Aborts the call, here and on the server; the call throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Options of `rerank` and `score`; an absent one takes the server's default. */
export interface ScoreOptions extends CallOptions {
  /** Default: the client's `model`. */
  model?: string | undefined;
  /** The instruction: what counts as relevant. */
  instruction?: string | undefined;
  /** The name of an instruction that is configured on the server. */
  preset?: string | undefined;
  /** Maximum tokens per document; `truncation` decides about longer ones. */
  maxTokensPerDoc?: number | undefined;
  /** Return logits, in nats, instead of scores in [0, 1]. */
  rawScores?: boolean | undefined;
  /** 0 to 999; lower runs earlier. */
  priority?: number | undefined;
  /** End user, for fair scheduling between the users of one key. */
  user?: string | undefined;
  /** False: compute every score, and store none in the cache. */
  cache?: boolean | undefined;
  /** Milliseconds after which the server stops and answers 504. */
  timeoutMs?: number | undefined;
}

/** Which sentences of each document are returned as `relevantSpans`. */
export interface RelevantSpansOptions {
  /** Minimum score of a sentence, 0 to 1. Default: 0.1. */
  threshold?: number | undefined;
  /** Maximum number per document. Default: all. */
  maxSpans?: number | undefined;
}

/** Further options of `rerank`. */
export interface RerankOptions extends ScoreOptions {
  /** Maximum number of results. Default: all. */
  topN?: number | undefined;
  /** False: leave out the texts. */
  returnDocuments?: boolean | undefined;
  /** Fields of object documents to rank by, in this order. */
  rankFields?: readonly string[] | undefined;
  /** For longer documents: cut them, refuse the request, or read all in chunks; the best counts. */
  truncation?: "cut" | "refuse" | "chunk" | undefined;
  /** The end that is cut off; "left" is the start of the text. */
  truncationSide?: "left" | "right" | undefined;
  /** Maximum chunks of a longer document; the best counts. */
  maxChunksPerDoc?: number | undefined;
  /** Tokens shared by neighbouring chunks. */
  overlapTokens?: number | undefined;
  /** After `timeoutMs`, return the documents that are scored so far instead of an error. */
  partial?: boolean | undefined;
  /** Leave out documents with a lower `relevanceScore`. */
  scoreThreshold?: number | undefined;
  /** Add `details` to each result, and `normalizedScore` if the server has a calibration. */
  returnDetails?: boolean | undefined;
  /** Add `relevantSpans` to each result; each sentence costs tokens. */
  relevantSpans?: boolean | RelevantSpansOptions | undefined;
}

/** One request of `batch`. */
export interface RerankRequest extends RerankOptions {
  query: string;
  documents: Iterable<Text>;
}

/** Tokens of all pairs, template included. */
export interface Usage {
  readonly promptTokens: number;
  readonly totalTokens: number;
  /** Prompt tokens of pairs whose score came from the cache. */
  readonly cachedTokens: number;
}

/** How a document was read. */
export interface Details {
  /** Tokens the model read, template included. */
  readonly tokens: number;
  /** Whether part of the document was not read. */
  readonly truncated: boolean;
  /** The chunk that has the score. */
  readonly chunk: Chunk;
}

/**
 * A part of a document, in Unicode code points: `[...text].slice(start, end).join("")`. Not
 * `text.slice(start, end)`: JavaScript counts UTF-16 units, two for most emoji.
 */
export interface Chunk {
  /** Index among the `of` chunks that were read, from 0. */
  readonly index: number;
  readonly of: number;
  readonly start: number;
  readonly end: number;
}

/** A sentence that answers the query; `start` and `end` count as those of `Chunk`. */
export interface RelevantSpan {
  readonly start: number;
  readonly end: number;
  /** In [0, 1]. */
  readonly score: number;
}

/** One document's relevance. */
export interface Result {
  /** The document's index in the request, from 0. */
  readonly index: number;
  /** In [0, 1], or a logit with `rawScores`. */
  readonly relevanceScore: number;
  /** The text; undefined if `returnDocuments` was false. */
  readonly document: string | undefined;
  /**
   * Probability that the document is relevant, by the server's calibration; undefined without one,
   * or without `returnDetails`.
   */
  readonly normalizedScore: number | undefined;
  /** Undefined unless `returnDetails` was true. */
  readonly details: Details | undefined;
  /** Most relevant first; empty without the option `relevantSpans`. */
  readonly relevantSpans: readonly RelevantSpan[];
}

interface About {
  readonly model: string;
  readonly id: string;
  readonly usage: Usage;
  /** Documents that were cut, unknown fields and other warnings. */
  readonly warnings: readonly string[];
}

export interface RerankResponse extends About {
  /** Best first. */
  readonly results: readonly Result[];
  /** Indexes of documents missing from a partial answer. */
  readonly notScored: readonly number[];
  /** Number of documents left out by a threshold of the request or of the server. */
  readonly belowThreshold: number;
}

export interface ScoreResponse extends About {
  /** In the order of the documents. */
  readonly scores: readonly number[];
}

/** A served model. */
export interface Model {
  readonly id: string;
  /** Maximum tokens of one pair. */
  readonly maxModelLen: number;
}

export function rerankBody(request: RerankRequest, model: string | undefined): object {
  return {
    ...shared(request, model),
    query: request.query,
    documents: texts(request.documents, request.rankFields !== undefined),
    top_n: request.topN,
    return_documents: request.returnDocuments,
    rank_fields: request.rankFields,
    truncation: request.truncation,
    truncation_side: request.truncationSide,
    max_chunks_per_doc: request.maxChunksPerDoc,
    overlap_tokens: request.overlapTokens,
    partial: request.partial,
    score_threshold: request.scoreThreshold,
    return_details: request.returnDetails,
    relevant_spans: spansBody(request.relevantSpans),
    raw_scores: request.rawScores,
  };
}

function spansBody(spans: RerankOptions["relevantSpans"]): object | boolean | undefined {
  return typeof spans === "object"
    ? { threshold: spans.threshold, max_spans: spans.maxSpans }
    : spans;
}

export function scoreBody(
  queries: string | Iterable<string>,
  documents: Text | Iterable<Text>,
  options: ScoreOptions,
  model: string | undefined,
): object {
  const one = typeof documents === "string" || !isIterable(documents);
  return {
    ...shared(options, model),
    queries: typeof queries === "string" ? queries : [...queries],
    documents: texts(one ? [documents] : documents),
    // `/v1/score` is vLLM's request, which calls raw scores `use_activation: false`.
    use_activation: options.rawScores === undefined ? undefined : !options.rawScores,
  };
}

/** Fields of both requests; JSON.stringify leaves out undefined values. */
function shared(options: ScoreOptions, model: string | undefined): object {
  return {
    model: options.model ?? model,
    instruction: options.instruction,
    preset: options.preset,
    max_tokens_per_doc: options.maxTokensPerDoc,
    priority: options.priority,
    user: options.user,
    cache: options.cache,
    timeout_ms: options.timeoutMs,
  };
}

/** Documents as sent; an object with `text` keeps only its text, unless `whole`. */
function texts(documents: Iterable<Text>, whole = false): Text[] {
  if (typeof documents === "string") {
    throw new TypeError("documents is one document; give an array of them");
  }
  return Array.from(documents, (one) =>
    typeof one === "string" || whole || !("text" in one) ? one : { text: one["text"] },
  );
}

function isIterable(value: object): value is Iterable<Text> {
  return Symbol.iterator in value;
}

/** The functions below throw a TypeError if the answer has another shape. */
export function rerankResponse(answer: any): RerankResponse {
  const results = answer.results.map((result: any) => ({
    index: number(result.index),
    relevanceScore: number(result.relevance_score),
    document: result.document?.text,
    normalizedScore: result.normalized_score,
    details: result.chunk && details(result),
    relevantSpans: (result.relevant_spans ?? []).map(span),
  }));
  return {
    results,
    notScored: answer.meta?.not_scored ?? [],
    belowThreshold: answer.meta?.below_threshold ?? 0,
    ...about(answer),
  };
}

function details({ tokens, truncated, chunk }: any): Details {
  return {
    tokens: number(tokens),
    truncated,
    chunk: {
      index: number(chunk.index),
      of: number(chunk.of),
      start: number(chunk.start),
      end: number(chunk.end),
    },
  };
}

function span({ start, end, score }: any): RelevantSpan {
  return { start: number(start), end: number(end), score: number(score) };
}

export function scoreResponse(answer: any): ScoreResponse {
  return { scores: answer.data.map((one: any) => number(one.score)), ...about(answer) };
}

export function modelList(answer: any): Model[] {
  return answer.data.map((one: any) => ({
    id: one.id,
    maxModelLen: number(one.max_model_len),
  }));
}

export function ready(answer: any): boolean {
  return answer.status === "ready";
}

function about(answer: any): About {
  return {
    model: answer.model,
    id: answer.id,
    usage: {
      promptTokens: number(answer.usage.prompt_tokens),
      totalTokens: number(answer.usage.total_tokens),
      cachedTokens: answer.usage.cached_tokens ?? 0,
    },
    warnings: answer.meta?.warnings ?? [],
  };
}

function number(value: unknown): number {
  if (typeof value !== "number") {
    throw new TypeError("not a number");
  }
  return value;
}
