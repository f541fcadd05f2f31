/** What is asked and what is answered: camelCase for the caller, snake_case for the server. */

/** A document: its text, or an object that holds it as `text` or in the `rankFields`. */
export type Text = string | { readonly [field: string]: unknown };

/** What any call may ask of the client. */
export interface CallOptions {
  /** Milliseconds for the call, retries included. */
  timeout?: number | undefined;
  /** Aborting it abandons the call, here and on the server; the call throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What any call for scores may ask; absent takes the server's default. */
export interface ScoreOptions extends CallOptions {
  /** The client's `model` when absent. */
  model?: string | undefined;
  /** What relevance means here. */
  instruction?: string | undefined;
  /** The name of an instruction that the server holds. */
  preset?: string | undefined;
  /** Longer documents do not fit; `truncation` says what becomes of them. */
  maxTokensPerDoc?: number | undefined;
  /** Logits, in nats, instead of scores in [0, 1]. */
  rawScores?: boolean | undefined;
  /** 0 to 999; lower is sooner. */
  priority?: number | undefined;
  /** Who asks; the users of a key share the engine fairly. */
  user?: string | undefined;
  /** False computes every score, and leaves none behind. */
  cache?: boolean | undefined;
  /** The server gives up after so many milliseconds. */
  timeoutMs?: number | undefined;
}

/** What `rerank` may ask besides. */
export interface RerankOptions extends ScoreOptions {
  /** Results to return, best first; all when absent. */
  topN?: number | undefined;
  /** False leaves out the texts. */
  returnDocuments?: boolean | undefined;
  /** Fields of objects that are read, in this order. */
  rankFields?: readonly string[] | undefined;
  /** What becomes of longer documents; chunks are read all, and the best counts. */
  truncation?: "cut" | "refuse" | "chunk" | undefined;
  /** "left" cuts them at their start. */
  truncationSide?: "left" | "right" | undefined;
  /** A longer document is read in up to so many chunks; the best counts. */
  maxChunksPerDoc?: number | undefined;
  /** Tokens that neighbouring chunks share. */
  overlapTokens?: number | undefined;
  /** Answers with what is scored when the server's time is over. */
  partial?: boolean | undefined;
  /** Documents whose `relevanceScore` is below are left out. */
  scoreThreshold?: number | undefined;
  /** Tells what was read of each document, and its `normalizedScore` where the server can. */
  returnDetails?: boolean | undefined;
}

/** One call of `rerank`, as `batch` takes them. */
export interface RerankRequest extends RerankOptions {
  query: string;
  documents: Iterable<Text>;
}

/** Tokens of every pair, template included. */
export interface Usage {
  readonly promptTokens: number;
  readonly totalTokens: number;
  /** Of the prompt tokens, those of pairs computed for an earlier request. */
  readonly cachedTokens: number;
}

/** What was read of a document. */
export interface Details {
  /** Tokens that the model read, template included. */
  readonly tokens: number;
  /** Whether a part of the document was not read. */
  readonly truncated: boolean;
  /** The part that has the score. */
  readonly chunk: Chunk;
}

/**
 * A part of a document, in Unicode code points: `[...text].slice(start, end).join("")`. JavaScript
 * counts most emoji twice, so `text.slice(start, end)` is another part where there are any.
 */
export interface Chunk {
  /** Its place among the `of` chunks that were read, from 0. */
  readonly index: number;
  readonly of: number;
  readonly start: number;
  readonly end: number;
}

/** One document's relevance. */
export interface Result {
  /** The document's place in the request, from 0. */
  readonly index: number;
  /** In [0, 1], or a logit where `rawScores` was asked for. */
  readonly relevanceScore: number;
  /** Its text; undefined where `returnDocuments` was false. */
  readonly document: string | undefined;
  /**
   * How probable its relevance is, by the server's calibration; undefined without one, or without
   * `returnDetails`.
   */
  readonly normalizedScore: number | undefined;
  /** Undefined unless `returnDetails` was true. */
  readonly details: Details | undefined;
}

interface About {
  readonly model: string;
  readonly id: string;
  readonly usage: Usage;
  /** Which documents were cut, and what the server did not understand. */
  readonly warnings: readonly string[];
}

export interface RerankResponse extends About {
  /** Best first. */
  readonly results: readonly Result[];
  /** Places of the documents that a partial answer lacks. */
  readonly notScored: readonly number[];
  /** Documents left out for their score, by a threshold of the request or of the server. */
  readonly belowThreshold: number;
}

export interface ScoreResponse extends About {
  /** In the order of the documents. */
  readonly scores: readonly number[];
}

/** A served model. */
export interface Model {
  readonly id: string;
  /** Tokens of one pair. */
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
    raw_scores: request.rawScores,
  };
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
    // This is vLLM's request, which has its own word for raw scores.
    use_activation: options.rawScores === undefined ? undefined : !options.rawScores,
  };
}

/** JSON leaves out what is undefined. */
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

/** Documents as they are sent; of an object with a text nothing but it, unless `whole`. */
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

/** The readers throw a TypeError where the answer is not what rankd says. */
export function rerankResponse(answer: any): RerankResponse {
  const results = answer.results.map((result: any) => ({
    index: number(result.index),
    relevanceScore: number(result.relevance_score),
    document: result.document?.text,
    normalizedScore: result.normalized_score,
    details: result.chunk && details(result),
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
