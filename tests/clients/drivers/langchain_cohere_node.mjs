// LangChain's Cohere package for Node, also used by n8n's Cohere node.
import { CohereRerank } from "@langchain/cohere";
import { CohereClient } from "cohere-ai";

import { BEIJING, DOCUMENTS, MODEL, QUERY, SENTENCE, eq, main, ranked, refused, server, watched } from "./harness.mjs";

const ranker = (url, token = "any", topN = 3) =>
  new CohereRerank({ client: new CohereClient({ token, environment: url }), model: MODEL, topN });
const documents = DOCUMENTS.map((pageContent) => ({ pageContent, metadata: {} }));

function check(found, count) {
  ranked(
    found.map((document) => DOCUMENTS.indexOf(document.pageContent)),
    found.map((document) => document.metadata.relevanceScore),
    count,
  );
}

await main("@langchain/cohere CohereRerank", "Cohere v1", "@langchain/cohere", {
  async ranks() {
    const requests = await watched(server.url, async (url) => {
      check(await ranker(url).compressDocuments(documents, QUERY));
    });
    eq(requests, ["POST /v1/rerank"]);
  },
  async top_n() {
    check(await ranker(server.url, "any", 2).compressDocuments(documents, QUERY), 2);
    check(await ranker(server.url, "any", 50).compressDocuments(documents, QUERY));
  },
  async objects() {
    const found = await ranker(server.url).rerank(documents, QUERY);
    eq(DOCUMENTS[found[0].index], BEIJING);
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      await refused(Error, SENTENCE, () => ranker(url).compressDocuments(documents, ""));
    });
    eq(requests.length, 1, "requests");
  },
  async keys() {
    check(await ranker(server.keyed, server.key).compressDocuments(documents, QUERY));
    await refused(Error, "invalid api token", () =>
      ranker(server.keyed, "wrong").compressDocuments(documents, QUERY),
    );
  },
});
