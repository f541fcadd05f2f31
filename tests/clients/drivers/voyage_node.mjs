// Voyage's own SDK for Node.
import { VoyageAIClient, VoyageAIError } from "voyageai";

import { BEIJING, DOCUMENTS, QUERY, SENTENCE, eq, main, ok, ranked, refused, server, watched } from "./harness.mjs";

const request = { model: "rerank-2.5", query: QUERY, documents: DOCUMENTS };
const client = (url, apiKey = "any") =>
  new VoyageAIClient({ apiKey, environment: `${url}/voyage/v1` });

function check(answer, count) {
  ranked(
    answer.data.map((result) => result.index),
    answer.data.map((result) => result.relevanceScore),
    count,
  );
  ok(answer.usage.totalTokens > 0, "no tokens");
}

await main("voyageai (npm) VoyageAIClient", "Voyage", "voyageai", {
  async ranks() {
    const requests = await watched(server.url, async (url) => {
      check(await client(url).rerank(request));
    });
    eq(requests, ["POST /voyage/v1/rerank"]);
  },
  async every_field() {
    const answer = await client(server.url).rerank({
      ...request,
      topK: 2,
      returnDocuments: true,
      truncation: false,
    });
    check(answer, 2);
    eq(answer.data[0].document, BEIJING);
  },
  async without_documents() {
    const answer = await client(server.url).rerank({
      ...request,
      topK: 50,
      returnDocuments: false,
    });
    check(answer);
    ok(answer.data.every((result) => result.document === undefined), "documents came back");
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      await refused(VoyageAIError, SENTENCE, () => client(url).rerank({ ...request, query: "" }));
    });
    eq(requests.length, 1, "requests");
  },
  async keys() {
    check(await client(server.keyed, server.key).rerank(request));
    await refused(VoyageAIError, "invalid api token", () =>
      client(server.keyed, "wrong").rerank(request),
    );
  },
});
