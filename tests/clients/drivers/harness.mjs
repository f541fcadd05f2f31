// Shared by all Node drivers: runs a client's cases and prints one JSON line per case.
import { readFileSync } from "node:fs";
import net from "node:net";

export const QUERY = "What is the capital of China?";
export const GRAVITY = "Gravity is a force that attracts two bodies towards each other.";
export const BEIJING = "The capital of China is Beijing.";
export const BREAD = "Bread is made of flour.";
// The relevant document is neither first nor last, so neither the order of the request nor its
// reverse passes for a ranking.
export const DOCUMENTS = [GRAVITY, BEIJING, BREAD];
export const BEST = 1;
// The server's message about an empty query.
export const SENTENCE = "query must not be empty";
export const MODEL = "Qwen/Qwen3-Reranker-0.6B";

const [url, keyed, key] = process.argv.slice(2);
export const server = { url, keyed, key };

export function eq(got, want, what = "got") {
  const [one, other] = [JSON.stringify(got), JSON.stringify(want)];
  if (one !== other) throw new Error(`${what} ${one}, wanted ${other}`);
}

export function ok(truth, what) {
  if (!truth) throw new Error(what);
}

/** Asserts `count` results with the best document first and descending scores. */
export function ranked(indexes, scores, count = DOCUMENTS.length) {
  eq(indexes.length, count, "results");
  eq(indexes[0], BEST, "first index");
  eq(new Set(indexes).size, count, "different indexes");
  eq(scores, [...scores].sort((a, b) => b - a), "scores");
  ok(scores[0] > 0.5 && scores.slice(1).every((score) => score >= 0 && score < 0.5), `${scores}`);
}

/** Asserts that the client throws `kind`, with `word` in its message; returns the error.
 *
 * Uses `kind.isInstance` if there is one: a package that is installed twice has two classes of
 * the same name.
 */
export async function refused(kind, word, run) {
  let error;
  try {
    await run();
  } catch (caught) {
    error = caught;
  }
  ok(error, `no ${kind.name}`);
  ok(kind.isInstance ? kind.isInstance(error) : error instanceof kind, `${error.constructor.name}: ${error.message}`);
  const message = `${error.message} ${JSON.stringify(error.body ?? error.responseBody ?? "")}`;
  ok(message.includes(word), `${word} is not in ${message.slice(0, 400)}`);
  return error;
}

/** Runs `run` with the address of a TCP proxy to `target`; returns the recorded requests. */
export async function watched(target, run) {
  const { hostname, port } = new URL(target);
  const requests = [];
  const wire = net.createServer((client) => {
    const upstream = net.connect(Number(port), hostname);
    client.on("data", (chunk) => {
      for (const [, line] of chunk.toString("latin1").matchAll(/^([A-Z]+ \S+) HTTP\/1\.1\r$/gm)) {
        requests.push(line);
      }
    });
    client.pipe(upstream).pipe(client);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
  });
  await new Promise((ready) => wire.listen(0, "127.0.0.1", ready));
  try {
    await run(`http://127.0.0.1:${wire.address().port}`);
  } finally {
    wire.close();
  }
  return requests;
}

function version(name) {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file, "utf8")).version;
}

/** Runs one client's cases, given as functions by case name. */
export async function main(client, dialect, name, cases) {
  for (const [title, run] of Object.entries(cases)) {
    const began = Date.now();
    let detail = "";
    try {
      await run();
    } catch (error) {
      detail = `${error?.constructor?.name}: ${error?.message}`.slice(0, 2000);
    }
    const line = {
      client,
      version: version(name),
      dialect,
      case: title,
      pass: !detail,
      detail,
      seconds: (Date.now() - began) / 1000,
    };
    process.stdout.write(`\n${JSON.stringify(line)}\n`);
  }
}
