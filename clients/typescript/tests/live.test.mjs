/** Against a running rankd at RANKD_URL; skipped if that is not set. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { BadRequest, Rankd, TimedOut } from "rankd";

const url = process.env.RANKD_URL;
const live = { skip: url ? false : "RANKD_URL is not set" };

const QUERY = "What is the capital of China?";
const DOCUMENTS = [
  "Gravity is a force that attracts two bodies towards each other.",
  "What is the capital of China? Beijing is the capital of China.",
];

const rankd = new Rankd({ baseUrl: url });

test("the best document comes first with its text", live, async () => {
  const answer = await rankd.rerank(QUERY, DOCUMENTS);

  assert.deepEqual(answer.results.map((result) => result.index), [1, 0]);
  assert.equal(answer.results[0].document, DOCUMENTS[1]);
  assert.ok(answer.results[0].relevanceScore > answer.results[1].relevanceScore);
  assert.ok(answer.usage.promptTokens > 0);
  assert.ok(answer.id);
  assert.deepEqual(answer.warnings, []);
});

test("documents may be any iterable, of texts or of objects", live, async () => {
  const documents = new Set(DOCUMENTS.map((text) => ({ text, more: 1n })));

  const answer = await rankd.rerank(QUERY, documents);

  assert.equal(answer.results[0].document, DOCUMENTS[1]);
});

test("documents below a threshold are left out and counted", live, async () => {
  const whole = await rankd.rerank(QUERY, DOCUMENTS);
  const scoreThreshold = whole.results[0].relevanceScore;

  const answer = await rankd.rerank(QUERY, DOCUMENTS, { scoreThreshold });

  assert.deepEqual(answer.results, whole.results.slice(0, 1));
  assert.equal(whole.belowThreshold, 0);
  assert.equal(answer.belowThreshold, 1);
});

test("usage counts cached tokens", live, async () => {
  await rankd.rerank(QUERY, DOCUMENTS);
  const { usage } = await rankd.rerank(QUERY, DOCUMENTS);

  assert.equal(usage.cachedTokens, usage.promptTokens);
});

test("an unknown preset is a bad request", live, async () => {
  await assert.rejects(rankd.rerank(QUERY, DOCUMENTS, { preset: "code" }), BadRequest);
  await assert.rejects(rankd.score(QUERY, DOCUMENTS, { preset: "code" }), BadRequest);
});

test("options reach the server", live, async () => {
  const answer = await rankd.rerank(QUERY, [...DOCUMENTS, "one two three four five six seven"], {
    topN: 2,
    returnDocuments: false,
    maxTokensPerDoc: 4,
    rawScores: true,
    instruction: "Judge.",
    preset: "default",
    returnDetails: true,
    priority: 3,
    timeoutMs: 60_000,
    partial: true,
    user: "me",
    cache: false,
    model: "default",
  });

  assert.equal(answer.results.length, 2);
  assert.equal(answer.results[0].document, undefined);
  assert.ok(answer.results[1].relevanceScore < 0);
  assert.ok(answer.warnings.some((warning) => warning.includes("was cut")));
  assert.ok(!answer.warnings.some((warning) => warning.includes("unknown field")));
  assert.equal(answer.model, "default");
  assert.deepEqual(answer.notScored, []);
});

test("fields of objects are read", live, async () => {
  const documents = DOCUMENTS.map((title) => ({ title, body: "Nothing." }));

  const every = await rankd.rerank(QUERY, documents);
  const titles = await rankd.rerank(QUERY, documents, { rankFields: ["title"] });

  assert.equal(titles.results[0].document, DOCUMENTS[1]);
  assert.match(every.results[0].document, /Nothing\./);
});

test("a long document is read in chunks", live, async () => {
  const long = "and so on ".repeat(3000) + DOCUMENTS[1];
  const maxTokensPerDoc = 200;

  const chunks = { maxTokensPerDoc, maxChunksPerDoc: 99, overlapTokens: 20 };
  const best = await rankd.rerank(QUERY, [long], chunks);
  const cut = await rankd.rerank(QUERY, [long], { maxTokensPerDoc });

  assert.ok(best.results[0].relevanceScore > cut.results[0].relevanceScore);
  assert.ok(!best.warnings.some((warning) => warning.includes("unknown field")));
});

test("the position of the best chunk is in code points", live, async () => {
  const long = "🙂 and so on ".repeat(3000) + DOCUMENTS[1];
  const options = { truncation: "chunk", maxTokensPerDoc: 200, returnDetails: true };

  const { results, warnings } = await rankd.rerank(QUERY, [long], options);
  const left = { truncationSide: "left", maxTokensPerDoc: 200, returnDetails: true };
  const end = await rankd.rerank(QUERY, [long], left);
  const plain = await rankd.rerank(QUERY, [long]);

  for (const { chunk } of [results[0].details, end.results[0].details]) {
    const part = [...long].slice(chunk.start, chunk.end).join("");
    assert.ok(part.endsWith(DOCUMENTS[1].slice(-10)));
  }
  assert.equal(results[0].details.chunk.index, results[0].details.chunk.of - 1);
  assert.equal(results[0].details.truncated, false);
  assert.equal(end.results[0].details.truncated, true);
  assert.equal(plain.results[0].details, undefined);
  assert.deepEqual(warnings, []);
});

test("relevant spans are in code points", live, async () => {
  const long = `🙂 Lions hunt. ${DOCUMENTS[1]} 面包由面粉和水制成。`;
  const spans = async (options) => (await rankd.rerank(QUERY, [long], options)).results[0].relevantSpans;

  const [first] = await spans({ relevantSpans: true });
  assert.equal([...long].slice(first.start, first.end).join(""), QUERY);
  assert.ok(first.score > 0);
  assert.deepEqual(await spans({ relevantSpans: { maxSpans: 1, threshold: 0.1 } }), [first]);
  assert.equal((await spans({ relevantSpans: { threshold: 0 } })).length, 4);
  assert.deepEqual(await spans({}), []);
});

test("score keeps the order and agrees with rerank", live, async () => {
  const { scores } = await rankd.score(QUERY, DOCUMENTS);
  const { results } = await rankd.rerank(QUERY, DOCUMENTS);

  assert.deepEqual(scores, [results[1].relevanceScore, results[0].relevanceScore]);
});

test("score takes pairs and a single document", live, async () => {
  const pairs = await rankd.score(["a fox", "a whale"], ["a fox", "a fox"]);
  const single = await rankd.score("a fox", { text: "a fox" });
  const logit = await rankd.score("a fox", "a fox", { rawScores: true });

  assert.ok(pairs.scores[0] > pairs.scores[1]);
  assert.equal(single.scores[0], pairs.scores[0]);
  assert.ok(Math.abs(1 / (1 + Math.exp(-logit.scores[0])) - single.scores[0]) < 1e-5);
  assert.deepEqual(logit.warnings, []);
});

test("a batch keeps the order and returns each request's own error", live, async () => {
  const requests = Array.from({ length: 20 }, (_, number) => ({
    query: number === 7 ? " " : `question ${number}`,
    documents: [`document ${number}`],
  }));

  const answers = await rankd.batch(requests.values(), { concurrency: 4 });

  assert.equal(answers.length, 20);
  answers.forEach((answer, number) => {
    if (number === 7) {
      assert.ok(answer instanceof BadRequest);
      assert.equal(answer.param, "query");
    } else {
      assert.equal(answer.results[0].document, `document ${number}`);
    }
  });
});

test("models and health", live, async () => {
  const [model] = await rankd.models();

  assert.ok(model.id);
  assert.ok(model.maxModelLen > 0);
  assert.equal(await rankd.health(), true);
  assert.equal(await new Rankd({ baseUrl: `${url}/v1/` }).health(), true);
});

test("an error has the server's message and fields", live, async () => {
  await assert.rejects(rankd.rerank(QUERY, DOCUMENTS, { priority: 1000 }), (problem) => {
    assert.ok(problem instanceof BadRequest);
    assert.equal(problem.name, "BadRequest");
    assert.equal(problem.status, 400);
    assert.equal(problem.code, "invalid_request");
    assert.equal(problem.param, "priority");
    assert.match(problem.message, /priority/);
    assert.ok(problem.requestId);
    return true;
  });
  await assert.rejects(rankd.rerank(QUERY, []), /documents must not be empty/);
});

test("a lone surrogate is replaced", live, async () => {
  const answer = await rankd.rerank(QUERY, ["half an emoji: \ud83d"]);

  assert.equal(answer.results[0].document, "half an emoji: \ufffd");
});

test("the server's own deadline is a timeout", live, async () => {
  const documents = Array.from({ length: 500 }, (_, n) => `document ${n} ${"and so on ".repeat(100)}`);

  await assert.rejects(
    rankd.rerank(QUERY, documents, { timeoutMs: 1 }),
    (problem) => problem instanceof TimedOut && problem.status === 504,
  );
});

test("the example of the README works when pasted", live, async () => {
  const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const [, example] = readme.match(/```ts\n(import[^]*?)```/);

  const ended = spawnSync(
    process.execPath,
    ["--input-type=module", "--eval", example.replace("http://127.0.0.1:8000", url)],
    { encoding: "utf8", cwd: fileURLToPath(new URL("..", import.meta.url)) },
  );

  assert.equal(ended.stderr, "");
  // The order depends on the model: rankd's fake engine has no right one.
  assert.match(ended.stdout, /^(Commits can be undone|A blue whale).* \d\.\d+\n$/);
});
