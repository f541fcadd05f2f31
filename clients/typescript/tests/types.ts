/** Checks the type declarations; compiled, never run. */

import { Rankd, RankdError, type RerankRequest } from "rankd";

const rankd = new Rankd({ timeout: 1000 });
const requests: RerankRequest[] = [{ query: "q", documents: ["d", { text: "e" }], topN: 1 }];

for (const answer of await rankd.batch(requests)) {
  const status: number | undefined = answer instanceof RankdError ? answer.status : undefined;
  const text = answer instanceof RankdError ? undefined : answer.results[0]?.document;
  console.log(status, text);
}

const scored = await rankd.score(["a"], new Set(["b"]), { rawScores: true });
const scores: readonly number[] = scored.scores;
console.log(scores);

// @ts-expect-error A misspelled option.
await rankd.rerank("q", ["d"], { topK: 1 });
// @ts-expect-error A value of the wrong type.
await rankd.rerank("q", ["d"], { topN: "1" });
// @ts-expect-error A request without documents.
await rankd.batch([{ query: "q" }]);
