// Asks the server: what it serves, and /v1/rerank like any other client.

import { number, t } from "./labels.js";

// The page is at <server>/ui/, also behind a proxy that adds a prefix.
const SERVER = globalThis.location && new URL("..", location.href.split(/[?#]/)[0]);
export const serverUrl = () => SERVER.href.replace(/\/$/, "");

const KEY = "rankd.key";
export const storedKey = () => sessionStorage.getItem(KEY) ?? "";
export const storeKey = (key) =>
  key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY);

// The server refused a request, failed, or could not be reached (status 0).
export class PageError extends Error {
  constructor(message, status = 0, requestId = "") {
    super(message);
    this.status = status;
    this.requestId = requestId;
  }
}

async function request(path, options = {}) {
  const key = storedKey();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, SERVER), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new PageError(t("noAnswer"));
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new PageError(errorMessage(body), response.status, requestIdOf(response));
  }
  return response;
}

const requestIdOf = (response) => response.headers.get("x-request-id") ?? "";

// Model, limits and presets of the server.
export const loadConfig = async () => (await request("ui/config.json")).json();

// One ranking. `onResults` gets the results so far, in the order in which they were scored.
export async function rerank(body, { signal, onResults = () => {} }) {
  const started = performance.now();
  const response = await request("v1/rerank", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
    body: JSON.stringify(body),
    signal,
  });
  const scored = [];
  let last;
  try {
    for await (const line of jsonLines(response.body)) {
      last = line;
      if (typeof line.index === "number") {
        scored.push(line);
        onResults(scored);
      }
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new PageError(t("cutOff"), 0, requestIdOf(response));
  }
  signal.throwIfAborted();
  if (!last?.results) {
    const message = last?.status_code ? errorMessage(last) : t("cutOff");
    throw new PageError(message, last?.status_code ?? 0, requestIdOf(response));
  }
  return {
    results: last.results,
    cached: cachedOf(scored),
    tokens: last.usage.prompt_tokens,
    warnings: (last.meta?.warnings ?? []).map(readable),
    milliseconds: performance.now() - started,
    requestId: requestIdOf(response),
    response: last,
  };
}

// The indexes of documents whose score came from the cache.
export const cachedOf = (scored) =>
  new Set(scored.filter((line) => line.cached).map((line) => line.index));

async function* jsonLines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    // Only the new piece is split: the last line may come in thousands of pieces.
    const parts = (value ?? "").split("\n");
    parts[0] = rest + parts[0];
    rest = done ? "" : parts.pop();
    yield* parts.filter((part) => part.trim()).map((part) => JSON.parse(part));
    if (done) {
      return;
    }
  }
}

// The message of an error body in any API's format.
function errorMessage(body) {
  const message = body.error?.message ?? body.message ?? body.detail ?? body.error;
  return readable(typeof message === "string" ? message : t("badAnswer"));
}

// A sentence of the server with the page's numbering (#1 is the first document) and numbers.
export function readable(sentence) {
  const unseen = sentence.replace(/(were not scored in time: )([\d, -]+)/, (_, words, ranges) =>
    words + ranges.replace(/\d+/g, (index) => `#${Number(index) + 1}`),
  );
  return unseen
    .replace(/\bdocument (\d+) was cut\b/g, (_, index) => `#${Number(index) + 1} was cut`)
    .replace(/\bdocuments\[(\d+)\]/g, (_, index) => `document #${Number(index) + 1}`)
    .replace(/(?<![\w.,#'"-])\d{4,15}(?![\w.,'"-]*\w)/g, (digits) => number(Number(digits)));
}
