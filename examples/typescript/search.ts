// Many searches at once, each with its own result or error.
import { Rankd, RankdError } from "rankd";

// Types of Node.js, without its package of types.
declare const process: { env: Record<string, string | undefined> };

const rankd = new Rankd({
  baseUrl: process.env["RERANK_URL"] ?? "http://127.0.0.1:8000",
  apiKey: process.env["RERANK_API_KEY"],
});

const documents = [
  "Charging the battery takes four hours from empty.",
  "For a long break store the battery half full in a dry room.",
  "刹车有异响多半是因为脏了。用酒精清洁碟片,再轻轻打磨刹车片。",
];
const queries = ["How long does charging the battery take?", "刹车响怎么办?", ""];

const answers = await rankd.batch(
  queries.map((query) => ({ query, documents, topN: 1 })),
  { concurrency: 2 },
);

for (const [index, answer] of answers.entries()) {
  if (answer instanceof RankdError) {
    console.log(`${queries[index]} → refused: ${answer.message}`);
  } else {
    const [best] = answer.results;
    console.log(`${queries[index]} → ${best?.relevanceScore.toFixed(3)} ${best?.document}`);
  }
}
