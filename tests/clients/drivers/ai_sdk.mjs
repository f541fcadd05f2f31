// Vercel's AI SDK with its Cohere provider.
import { createCohere } from "@ai-sdk/cohere";
import { APICallError, rerank } from "ai";

import { BEIJING, DOCUMENTS, QUERY, SENTENCE, eq, main, ok, ranked, refused, server, watched } from "./harness.mjs";

const model = (url, apiKey = "any") =>
  createCohere({ baseURL: `${url}/v2`, apiKey }).reranking("qwen3-reranker");

function check(answer, count) {
  ranked(
    answer.ranking.map((result) => result.originalIndex),
    answer.ranking.map((result) => result.score),
    count,
  );
}

await main("ai + @ai-sdk/cohere", "Cohere v2", "@ai-sdk/cohere", {
  async ranks() {
    const requests = await watched(server.url, async (url) => {
      const answer = await rerank({ model: model(url), query: QUERY, documents: DOCUMENTS });
      check(answer);
      eq(answer.rerankedDocuments[0], BEIJING);
      ok(answer.response.id, "no id");
    });
    eq(requests, ["POST /v2/rerank"]);
  },
  async every_field() {
    check(
      await rerank({
        model: model(server.url),
        query: QUERY,
        documents: DOCUMENTS,
        topN: 2,
        providerOptions: { cohere: { maxTokensPerDoc: 4096, priority: 1 } },
      }),
      2,
    );
  },
  async documents_as_objects() {
    check(
      await rerank({
        model: model(server.url),
        query: QUERY,
        documents: DOCUMENTS.map((text) => ({ text })),
      }),
    );
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      const error = await refused(APICallError, SENTENCE, () =>
        rerank({ model: model(url), query: "", documents: DOCUMENTS }),
      );
      eq(error.message, SENTENCE);
      eq(error.statusCode, 400);
    });
    eq(requests.length, 1, "requests");
  },
  async keys() {
    check(
      await rerank({
        model: model(server.keyed, server.key),
        query: QUERY,
        documents: DOCUMENTS,
      }),
    );
    await refused(APICallError, "invalid api token", () =>
      rerank({ model: model(server.keyed, "wrong"), query: QUERY, documents: DOCUMENTS }),
    );
  },
});
