// Vercel's AI SDK with its Bedrock provider.
import { createAmazonBedrock } from "@ai-sdk/amazon-bedrock";
import { APICallError, rerank } from "ai";

import { BEIJING, DOCUMENTS, QUERY, eq, main, ranked, refused, server, watched } from "./harness.mjs";

const model = (url, accessKeyId = "any") =>
  createAmazonBedrock({
    baseURL: url,
    region: "us-east-1",
    accessKeyId,
    secretAccessKey: "any",
  }).reranking("cohere.rerank-v3-5:0");

function check(answer, count) {
  ranked(
    answer.ranking.map((result) => result.originalIndex),
    answer.ranking.map((result) => result.score),
    count,
  );
}

await main("ai + @ai-sdk/amazon-bedrock", "Bedrock", "@ai-sdk/amazon-bedrock", {
  async ranks() {
    const requests = await watched(server.url, async (url) => {
      const answer = await rerank({ model: model(url), query: QUERY, documents: DOCUMENTS });
      check(answer);
      eq(answer.rerankedDocuments[0], BEIJING);
    });
    eq(requests, ["POST /rerank"]);
  },
  async every_field() {
    check(await rerank({ model: model(server.url), query: QUERY, documents: DOCUMENTS, topN: 2 }), 2);
  },
  async documents_as_objects() {
    const documents = DOCUMENTS.map((text) => ({ text }));
    check(await rerank({ model: model(server.url), query: QUERY, documents }));
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      const error = await refused(APICallError, "must not be empty", () =>
        rerank({ model: model(url), query: " ", documents: DOCUMENTS }),
      );
      eq(error.statusCode, 400);
    });
    eq(requests.length, 1, "requests");
  },
  async keys() {
    check(await rerank({ model: model(server.keyed, server.key), query: QUERY, documents: DOCUMENTS }));
    const error = await refused(APICallError, "invalid api token", () =>
      rerank({ model: model(server.keyed, "wrong"), query: QUERY, documents: DOCUMENTS }),
    );
    eq(error.statusCode, 401);
  },
});
