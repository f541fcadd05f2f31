// The AI SDK's provider for Ollama, with the rerank API that was proposed for it.
import { rerank } from "ai";
import { createOllama } from "ai-sdk-ollama";

import { BEIJING, DOCUMENTS, QUERY, eq, main, ranked, refused, server, watched } from "./harness.mjs";

const model = (url, settings) =>
  createOllama({ baseURL: url, ...settings }).reranking("qwen3-reranker");

function check(answer, count) {
  ranked(
    answer.ranking.map((result) => result.originalIndex),
    answer.ranking.map((result) => result.score),
    count,
  );
}

await main("ai + ai-sdk-ollama", "Ollama", "ai-sdk-ollama", {
  async ranks() {
    const requests = await watched(server.url, async (url) => {
      const answer = await rerank({ model: model(url), query: QUERY, documents: DOCUMENTS });
      check(answer);
      eq(answer.rerankedDocuments[0], BEIJING);
    });
    eq(requests, ["POST /api/rerank"]);
  },
  async top_n() {
    check(await rerank({ model: model(server.url), query: QUERY, documents: DOCUMENTS, topN: 2 }), 2);
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      await refused(Error, "query must not be empty", () =>
        rerank({ model: model(url), query: " ", documents: DOCUMENTS }),
      );
    });
    eq(requests.length, 1, "requests");
  },
  async keys() {
    const headers = { Authorization: `Bearer ${server.key}` };
    check(await rerank({ model: model(server.keyed, { headers }), query: QUERY, documents: DOCUMENTS }));
    await refused(Error, "invalid api token", () =>
      rerank({ model: model(server.keyed), query: QUERY, documents: DOCUMENTS }),
    );
  },
});
